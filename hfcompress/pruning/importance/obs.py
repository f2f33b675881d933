"""Structured optimal brain surgeon: least-squares error of every head and FFN neuron, with weight updates for plans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hfcompress.data.lists import model_inputs
from hfcompress.errors import DataError
from hfcompress.models.architectures import architecture_of, encoder_layers, head_size, projection
from hfcompress.models.hooks import evaluation_mode, hooks
from hfcompress.models.plan import PruningPlan
from hfcompress.models.surgery import current_plan
from hfcompress.models.wrappers import unwrapped
from hfcompress.pruning.importance.importance import Importance
from hfcompress.pruning.importance.least_squares import Removal, damped, matrix_of, parameters_of, removal_order, solve
from hfcompress.pruning.importance.margins import MarginGradients, TokenWeights
from hfcompress.pruning.importance.moments import Moments
from hfcompress.utils.device import moved
from hfcompress.utils.progress import progress_bar

# A few hundred calibration pairs have few tokens with large weights. With less damping the update overfits to these and
# ranks worse on other queries. Chosen on dev among 0.01, 0.1, 0.3 and 1.
DAMPING = 0.3
STRONGEST_DAMPING = 1e3
ALL_DIRECTIONS = 0.1  # share of the error that weights all directions of the output alike
BLOCKS = 96  # steps in which the neurons of an FFN are removed
CACHED_BYTES = 512 * 2**20  # updated weights kept for a search, which asks for the same ones many times
NO_REMOVAL = Removal(torch.zeros(0, dtype=torch.long), torch.zeros(1, dtype=torch.float64))


@dataclass(frozen=True)
class Problem:
    """The least-squares problem of one W_O or W_2.

    Attributes:
        weight: W with the bias as its last column, in the precision of the model, shape `(outputs, columns)`.
        hessian: H, float32 to save memory, shape `(columns, columns)`.
        size: Columns of a group: those of a head, or 1.
        bias: Whether there is a bias.
        scale: Factor from a loss `tr(M D H D^T M^T)` to an error.
        metric: M, float64, shape `(outputs, outputs)`; the unit matrix by default. It affects the order of removal, but
            not the weight update, which is the same for every M: it is dropped once the order is known.
    """

    weight: Tensor
    hessian: Tensor
    size: int
    bias: bool
    scale: float
    metric: Tensor | None = None

    @property
    def groups(self) -> int:
        """Number of heads or neurons."""
        return (self.weight.shape[1] - self.bias) // self.size

    def removal(self) -> Removal:
        """Order in which the groups are removed, and the errors."""
        block = 1 if self.size > 1 else max(1, round(self.groups / BLOCKS))
        weight = self.weight.double() if self.metric is None else self.metric @ self.weight.double()
        removal = removal_order(weight, self.hessian.double(), self.size, self.groups, block)
        return Removal(removal.order, self.scale * removal.errors)

    def updated(self, groups: list[int]) -> dict[str, Tensor]:
        """Weight and bias after the least-squares update, if only these groups are kept."""
        columns = [group * self.size + offset for group in groups for offset in range(self.size)]
        if self.bias:
            columns.append(self.weight.shape[1] - 1)
        kept = torch.tensor(columns, dtype=torch.long, device=self.weight.device)
        return parameters_of(solve(self.weight.double(), self.hessian.double(), kept), self.bias)


@dataclass(frozen=True)
class Reconstruction:
    """The least-squares problems of a whole model, which give the updated weights of every plan.

    Attributes:
        layers: Path of the layer list in the model.
        paths: Paths of W_O and W_2 in a layer.
        current: The plan that the model carries.
        problems: For each layer the problems of W_O and W_2; None where pruning left no inputs.
    """

    layers: str
    paths: tuple[str, str]
    current: PruningPlan
    problems: list[tuple[Problem | None, ...]]
    _cache: dict[tuple[int, str, tuple[int, ...]], dict[str, Tensor]] = field(default_factory=dict)

    def weights(self, plan: PruningPlan) -> dict[str, Tensor]:
        """Updated weights for a plan in the numbering of the original model, by their names in the pruned model."""
        result = {}
        for new, (old, heads, neurons) in enumerate(plan.local(self.current)):
            for path, problem, groups in zip(self.paths, self.problems[old], (heads, neurons), strict=True):
                if problem is not None and len(groups) < problem.groups:
                    for name, tensor in self._solution(old, path, problem, groups).items():
                        result[f"{self.layers}.{new}.{path}.{name}"] = tensor
        return result

    def _solution(self, layer: int, path: str, problem: Problem, groups: list[int]) -> dict[str, Tensor]:
        """Updated weights of one matrix; the oldest cached ones make room for new ones."""
        key = (layer, path, tuple(groups))
        if key not in self._cache:
            self._cache[key] = problem.updated(groups)
            sizes = {each: _nbytes(solution) for each, solution in self._cache.items()}
            excess = sum(sizes.values()) - CACHED_BYTES
            for oldest in list(self._cache)[:-1]:
                if excess <= 0:
                    break
                del self._cache[oldest]
                excess -= sizes[oldest]
        return self._cache[key]


def obs(
    model: PreTrainedModel,
    batches: Sequence[dict[str, Tensor]],
    gradients: MarginGradients | None = None,
    damping: float = DAMPING,
    progress: bool = True,
) -> Importance:
    """Least-squares error of removing each head (columns of W_O) and FFN neuron (columns of W_2).

    The second moments of the inputs of W_O and W_2 are measured over real tokens in one forward pass. Then the heads or
    neurons of each sublayer are removed one after the other, always the one with the least error of the output after a
    least-squares update of the remaining weights and the bias. The score of a head or neuron is the error of the
    sublayer when it is removed: the expected squared change of the margins, to first order; without gradients, the
    error relative to the second moment of the sublayer's output.

    Args:
        model: A sequence-classification model of a supported family, pruned or not.
        batches: Batches of `RankingCollator`.
        gradients: Result of `margin_gradients` for the batches; by default all real tokens and all directions of the
            output count alike.
        damping: Damping of H's diagonal, as a share of its mean.
        progress: Show progress bars.

    Raises:
        DataError: An activation is not finite, or there are fewer real tokens than columns.
    """
    model = unwrapped(model)
    architecture = architecture_of(model.config)
    paths = (architecture.attention_output, architecture.ffn_out)
    moments = measure_moments(model, batches, gradients.tokens if gradients else None, progress)
    lists = sum(len(batch["list_mask"]) for batch in batches) if gradients else None
    problems: list[tuple[Problem | None, ...]] = []
    notes: list[str] = []
    for number, layer in enumerate(encoder_layers(model)):
        parts, moments[number] = moments[number], (None, None)  # their memory is free as soon as they are used
        built: list[Problem | None] = []
        for path, part, size in zip(paths, parts, (head_size(model.config), 1), strict=True):
            metric = _metric(gradients.directions[number, path]) if gradients else None
            name, module = f"{path} of layer {number}", layer.get_submodule(path)
            problem, note = _problem(name, module, part, size, damping, lists, metric)
            built.append(problem)
            notes += [note] if note else []
        problems.append(tuple(built))
    removals = []
    for number, row in enumerate(
        progress_bar(problems, desc="obs importance", unit="layer", disable=not progress, leave=False)
    ):
        removals.append([problem.removal() if problem else NO_REMOVAL for problem in row])
        problems[number] = tuple(replace(problem, metric=None) if problem else None for problem in row)
    reconstruction = Reconstruction(architecture.layers, paths, current_plan(model), problems)
    heads, ffn = ([row[kind] for row in removals] for kind in (0, 1))
    return Importance(
        "obs",
        [_scores(removal) for removal in heads],
        [_scores(removal) for removal in ffn],
        [removal.errors for removal in heads],
        [removal.errors for removal in ffn],
        weights=reconstruction.weights,
        notes=tuple(notes),
    )


@torch.inference_mode()
def measure_moments(
    model: PreTrainedModel,
    batches: Sequence[dict[str, Tensor]],
    token_weights: Sequence[TokenWeights] | None = None,
    progress: bool = True,
) -> list[tuple[Moments | None, Moments | None]]:
    """Second moments of the inputs of W_O and W_2 of every layer over real tokens; None where pruning left no inputs.

    Raises:
        DataError: An activation is not finite, or there are fewer real tokens than columns.
    """
    model = unwrapped(model)
    architecture = architecture_of(model.config)
    watched: dict[tuple[int, str], tuple[nn.Linear, Moments]] = {}
    for number, layer in enumerate(encoder_layers(model)):
        for path in (architecture.attention_output, architecture.ffn_out):
            if (module := projection(layer, path)) is not None:
                watched[number, path] = module, Moments(module.in_features, module.bias is not None, model.device)
    modules = {name: module for name, (module, _) in watched.items()}
    with evaluation_mode(model), _inputs_of(modules) as inputs:
        for number, batch in enumerate(
            progress_bar(batches, desc="activations", unit="batch", disable=not progress, leave=False)
        ):
            inputs_of_model = moved(model_inputs(batch), model.device)
            model(**inputs_of_model)
            real = inputs_of_model["attention_mask"].bool()
            for name, (_, moments) in watched.items():
                seen = inputs[name][real]
                if not torch.isfinite(seen).all():
                    raise DataError(
                        f"The inputs of {name[1]} in layer {name[0]} are not finite on calibration data",
                        value="NaN or infinity",
                        expected="finite activations",
                        remedy="check the checkpoint: its weights may be broken, or overflow in 16 bits",
                    )
                moments.add(seen, token_weights[number][name][real] if token_weights else None)
    for name, (_, moments) in watched.items():
        if moments.tokens < moments.columns:
            raise DataError(
                f"There are too few calibration pairs for a least-squares update of {name[1]} in layer {name[0]}",
                value=f"{moments.tokens} tokens that are not padding",
                expected=f"at least {moments.columns}, one for each column",
                remedy="raise prune.calibration_queries, add training queries, or use importance: magnitude",
            )
    found = {name: moments for name, (_, moments) in watched.items()}
    return [
        (found.get((number, architecture.attention_output)), found.get((number, architecture.ffn_out)))
        for number in range(len(encoder_layers(model)))
    ]


def _problem(
    name: str,
    module: nn.Module,
    moments: Moments | None,
    size: int,
    damping: float,
    lists: int | None,
    metric: Tensor | None,
) -> tuple[Problem | None, str | None]:
    """The problem of one sublayer, and a note if H was singular and the damping was raised."""
    if moments is None:
        return None, None
    matrix, strength = moments.matrix(), damping
    # Rounded to float32, since the stored matrix must be positive definite.
    while torch.linalg.cholesky_ex(hessian := damped(matrix, strength, moments.columns).float().double()).info:
        strength = max(10 * strength, 1e-6)
        if strength > STRONGEST_DAMPING:
            raise DataError(
                f"The second moments of the inputs of {name} are singular",
                value=f"damping {damping:g}, and no better up to {STRONGEST_DAMPING:g}",
                expected="inputs that are not all zero",
                remedy="check the checkpoint: this sublayer may be dead; or use importance: fisher",
            )
    note = f"H of {name} was singular: damping raised from {damping:g} to {strength:g}" if strength > damping else None
    weight = matrix_of(module)
    own = weight.to(getattr(module, "weight").dtype)  # noqa: B009
    # H has the factor 2/N; the change of the margins is a mean over lists.
    scale = moments.weight / (2 * lists) if lists else 1 / (float((weight @ matrix * weight).sum()) or 1.0)
    return Problem(own, hessian.float(), size, moments.constant, scale, metric), note


def _metric(directions: Tensor) -> Tensor:
    """M with `M^T M` = the second moment of the gradients, mixed with the unit matrix."""
    mixed = (1 - ALL_DIRECTIONS) * directions
    mixed.diagonal().add_(ALL_DIRECTIONS)
    return torch.linalg.cholesky(mixed, upper=True)


def _nbytes(solution: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in solution.values())


def _scores(removal: Removal) -> Tensor:
    """Error when each head or neuron is removed, plus a tiny amount by order, so that no two are equal."""
    scores = torch.empty(len(removal.order), dtype=torch.float64)
    scores[removal.order] = removal.errors[1:] + 1e-12 * torch.arange(1, len(removal.errors))
    return scores


@contextmanager
def _inputs_of(modules: dict[tuple[int, str], nn.Linear]) -> Iterator[dict[tuple[int, str], Tensor]]:
    """Record the latest input of each module."""
    inputs: dict[tuple[int, str], Tensor] = {}

    def record(name: tuple[int, str], _module: nn.Module, positional: tuple[Tensor, ...]) -> None:
        inputs[name] = positional[0]

    handles = [module.register_forward_pre_hook(partial(record, name)) for name, module in modules.items()]
    with hooks(handles):
        yield inputs
