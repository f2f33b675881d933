"""Structured optimal brain surgeon: the least-squares error of every head and FFN neuron, and the settled survivors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hfcompress.architectures import architecture_of, encoder_layers, head_size, projection
from hfcompress.errors import DataError
from hfcompress.importance.importance import Importance
from hfcompress.importance.least_squares import Removal, damped, matrix_of, parameters_of, removal_order, solve
from hfcompress.importance.margins import MarginGradients, Weights
from hfcompress.importance.moments import Moments
from hfcompress.plan import PruningPlan
from hfcompress.progress import progress_bar
from hfcompress.surgery import current_plan
from hfcompress.training.trainer import RANKING_COLUMNS

# Calibration is a few hundred pairs, and few of their tokens weigh much: with little damping the survivors fit these
# few, and rank worse on other queries. Chosen on dev among 0.01, 0.1, 0.3 and 1.
DAMPING = 0.3
STRONGEST_DAMPING = 1e3
ALL_DIRECTIONS = 0.1  # share of an error that counts all directions of the output alike
BLOCKS = 96  # an FFN goes in so many steps
KEPT_SOLUTIONS = 256
NOTHING = Removal(torch.zeros(0, dtype=torch.long), torch.zeros(1, dtype=torch.float64))


@dataclass(frozen=True)
class Problem:
    """Least squares of one W_O or W_2.

    Attributes:
        weight: W with the bias as its last column, float64, shape `(outputs, columns)`.
        hessian: H, float32 to save memory, shape `(columns, columns)`.
        size: Columns of a group: those of a head, or one.
        bias: Whether there is a bias.
        scale: What a loss of `tr(M D H D^T M^T)` is worth as an error.
        metric: M, float64, shape `(outputs, outputs)`; the unit matrix where left out. It decides what goes, and not
            how the survivors are settled: that is the same for every M.
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
        """Order of all groups, and their errors."""
        block = 1 if self.size > 1 else max(1, round(self.groups / BLOCKS))
        weight = self.weight if self.metric is None else self.metric @ self.weight
        removal = removal_order(weight, self.hessian.double(), self.size, self.groups, block)
        return Removal(removal.order, self.scale * removal.errors)

    def settled(self, groups: list[int]) -> dict[str, Tensor]:
        """Weight and bias that remain where only these groups stay."""
        columns = [group * self.size + offset for group in groups for offset in range(self.size)]
        if self.bias:
            columns.append(self.weight.shape[1] - 1)
        kept = torch.tensor(columns, dtype=torch.long)
        return parameters_of(solve(self.weight, self.hessian.double(), kept), self.bias)


@dataclass(frozen=True)
class Reconstruction:
    """The least-squares problems of a whole model, from which the weights of every plan follow.

    Attributes:
        layers: Path of the layer list in the model.
        paths: Paths of W_O and W_2 in a layer.
        current: What the model has.
        problems: For each layer the problems of both; None where pruning has left nothing to solve.
    """

    layers: str
    paths: tuple[str, str]
    current: PruningPlan
    problems: list[tuple[Problem | None, ...]]
    _settled: dict[tuple[int, str, tuple[int, ...]], dict[str, Tensor]] = field(default_factory=dict)

    def weights(self, plan: PruningPlan) -> dict[str, Tensor]:
        """Weights that go with a plan, by their names in the pruned model; in the numbering of the first teacher."""
        result = {}
        for new, (old, heads, neurons) in enumerate(plan.local(self.current)):
            for path, problem, groups in zip(self.paths, self.problems[old], (heads, neurons), strict=True):
                if problem is not None and len(groups) < problem.groups:
                    for name, tensor in self._solution(old, path, problem, groups).items():
                        result[f"{self.layers}.{new}.{path}.{name}"] = tensor
        return result

    def _solution(self, layer: int, path: str, problem: Problem, groups: list[int]) -> dict[str, Tensor]:
        """A solution, kept while there is room: a search asks for the same ones again and again."""
        key = (layer, path, tuple(groups))
        if key not in self._settled:
            if len(self._settled) >= KEPT_SOLUTIONS:
                self._settled.clear()
            self._settled[key] = problem.settled(groups)
        return self._settled[key]


def obs(
    model: PreTrainedModel,
    batches: Sequence[dict[str, Tensor]],
    gradients: MarginGradients | None = None,
    damping: float = DAMPING,
    progress: bool = True,
) -> Importance:
    """Least-squares error of doing without each head (columns of W_O) and FFN neuron (columns of W_2).

    The second moments of the inputs of W_O and W_2 are measured over real tokens in one forward pass. Then the
    structures of each sublayer are removed one after the other, always the one whose loss costs the output least once
    all survivors, the bias among them, are settled by least squares. The score of a structure is the error of the
    sublayer at the time when it goes: the expected squared change of the margins, to first order; without gradients,
    the error relative to the second moment of the sublayer's output.

    Args:
        model: A sequence-classification model of a supported family, pruned or not.
        batches: Batches of `RankingCollator`.
        gradients: What `margin_gradients` gives for the batches; all real tokens and all directions of the output alike
            where left out.
        damping: Share of the mean of H's diagonal added to the diagonal.
        progress: Show progress bars.

    Raises:
        DataError: An activation is not finite, or there are fewer real tokens than columns.
    """
    architecture = architecture_of(model.config)
    paths = (architecture.attention_output, architecture.ffn_out)
    moments = measure_moments(model, batches, gradients.tokens if gradients else None, progress)
    lists = sum(len(batch["list_mask"]) for batch in batches) if gradients else None
    problems: list[tuple[Problem | None, ...]] = []
    notes: list[str] = []
    for number, (layer, parts) in enumerate(zip(encoder_layers(model), moments, strict=True)):
        row: list[Problem | None] = []
        for path, part, size in zip(paths, parts, (head_size(model.config), 1), strict=True):
            metric = _metric(gradients.directions[number, path]) if gradients else None
            name, module = f"{path} of layer {number}", layer.get_submodule(path)
            problem, note = _problem(name, module, part, size, damping, lists, metric)
            row.append(problem)
            notes += [note] if note else []
        problems.append(tuple(row))
    reconstruction = Reconstruction(architecture.layers, paths, current_plan(model), problems)
    removals = [
        [problem.removal() if problem else NOTHING for problem in row]
        for row in progress_bar(problems, desc="obs importance", unit="layer", disable=not progress, leave=False)
    ]
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
    token_weights: Sequence[Weights] | None = None,
    progress: bool = True,
) -> list[tuple[Moments | None, Moments | None]]:
    """Second moments of the inputs of W_O and W_2 of every layer over real tokens; None where pruning left no input.

    Raises:
        DataError: An activation is not finite, or there are fewer real tokens than columns.
    """
    architecture = architecture_of(model.config)
    watched: dict[tuple[int, str], tuple[nn.Linear, Moments]] = {}
    for number, layer in enumerate(encoder_layers(model)):
        for path in (architecture.attention_output, architecture.ffn_out):
            if (module := projection(layer, path)) is not None:
                watched[number, path] = module, Moments(module.in_features, module.bias is not None)
    training = model.training
    model.eval()
    with _inputs_of({name: module for name, (module, _) in watched.items()}) as inputs:
        for place, batch in enumerate(
            progress_bar(batches, desc="activations", unit="batch", disable=not progress, leave=False)
        ):
            model(**{name: value for name, value in batch.items() if name not in RANKING_COLUMNS})
            real = batch["attention_mask"].bool()
            for name, (_, moments) in watched.items():
                seen = inputs[name][real]
                if not torch.isfinite(seen).all():
                    raise _not_finite(name)
                moments.add(seen, token_weights[place][name][real] if token_weights else None)
    model.train(training)
    for name, (_, moments) in watched.items():
        if moments.tokens < moments.columns:
            raise _too_few(name, moments)
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
    """The problem of one sublayer, and what was done where H was singular with the damping asked for."""
    if moments is None:
        return None, None
    matrix, strength = moments.matrix(), damping
    # Rounded to what is kept of it, which is what has to have an inverse.
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
    # H has 2/N, and the margins' change is a mean over the lists.
    scale = moments.weight / (2 * lists) if lists else 1 / (float((weight @ matrix * weight).sum()) or 1.0)
    return Problem(weight, hessian.float(), size, moments.constant, scale, metric), note


def _metric(directions: Tensor) -> Tensor:
    """M with `M^T M` = the second moment of the gradients, drawn towards the unit matrix."""
    mixed = (1 - ALL_DIRECTIONS) * directions
    mixed.diagonal().add_(ALL_DIRECTIONS)
    return torch.linalg.cholesky(mixed, upper=True)


def _scores(removal: Removal) -> Tensor:
    """Error at the time when each structure goes; a hair more for each that went before, so that no two are equal."""
    scores = torch.empty(len(removal.order), dtype=torch.float64)
    scores[removal.order] = removal.errors[1:] + 1e-12 * torch.arange(1, len(removal.errors))
    return scores


def _not_finite(name: tuple[int, str]) -> DataError:
    return DataError(
        f"The inputs of {name[1]} in layer {name[0]} are not finite on calibration data",
        value="NaN or infinity",
        expected="finite activations",
        remedy="check the checkpoint: its weights may be broken, or overflow in 16 bits",
    )


def _too_few(name: tuple[int, str], moments: Moments) -> DataError:
    return DataError(
        f"There are too few calibration pairs to settle the weights of {name[1]} in layer {name[0]}",
        value=f"{moments.tokens} tokens that are not padding",
        expected=f"at least {moments.columns}, one for each column",
        remedy="raise prune.calibration_queries, add training queries, or use importance: magnitude",
    )


@contextmanager
def _inputs_of(modules: dict[tuple[int, str], nn.Linear]) -> Iterator[dict[tuple[int, str], Tensor]]:
    """The last input of each module."""
    inputs: dict[tuple[int, str], Tensor] = {}

    def note(name: tuple[int, str]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, positional: tuple[Tensor, ...]) -> None:
            inputs[name] = positional[0]

        return hook

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in modules.items()]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()
