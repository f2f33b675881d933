"""Gradual pruning inside any `Trainer`: gates close along a cubic schedule, and surgery follows at the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfcompress.architectures import architecture_of, encoder_layers
from hfcompress.errors import PlanError
from hfcompress.importance.gates import Gates, gated
from hfcompress.importance.importance import Importance
from hfcompress.importance.scores import magnitude
from hfcompress.plan import LayerPlan, PruningPlan
from hfcompress.surgery import apply_plan, current_plan
from hfcompress.training.callbacks import checkpoint_folder, transformer_of
from hfcompress.training.schedule import cubic_share

PLAN_FILE = "pruning_plan.json"


class GradualPruningCallback(TrainerCallback):
    """Takes a model to a plan while it trains, a little at every step.

    What the plan drops is closed in order of importance, heads and FFN neurons each for themselves; the share that is
    closed follows the cubic schedule 1 - (1 - t)^3 (Zhu and Gupta, 2017), with t running from 0 to 1 between `begin`
    and `end`. A layer that the plan drops fades into its own input. So at the end of the schedule the gated model
    scores as the pruned one will, and the rest of the training is recovery. When training ends, the model is cut by the
    plan in place, and the optimizer is left with its parameters and no others.

    The gates follow from the step alone, so a checkpoint in mid-schedule resumes bit-equal. Checkpoints hold all
    weights; with `load_best_model_at_end`, evaluations before the end of the schedule are those of a larger model, so
    begin them later (`eval_delay`).

    Args:
        plan: What is kept in the end, in the numbering of the first teacher.
        importance: What is closed first; the magnitude of the weights where left out.
        begin: Share of all steps after which the schedule begins.
        end: Share of all steps after which it is complete.

    Raises:
        PlanError: The schedule is not one. When training begins: the plan keeps what the model does not have, the
            importance is that of another model, or a checkpoint is resumed that was made with another plan.
    """

    def __init__(
        self, plan: PruningPlan, importance: Importance | None = None, begin: float = 0.0, end: float = 0.5
    ) -> None:
        if not 0 <= begin < end <= 1:
            raise PlanError(
                "This is no schedule of gradual pruning",
                value=f"from {begin} to {end} of all steps",
                expected="0 <= begin < end <= 1",
                remedy="correct begin and end",
            )
        self.plan, self.importance = plan, importance
        self.begin, self.end = begin, end
        self._hooks = ExitStack()
        self._gates: Gates | None = None
        self._fading: set[int] = set()
        self._closing: list[list[tuple[Tensor, int]]] = []
        self._share = 0.0

    def share(self, step: int, steps: int) -> float:
        """Share of what goes that is closed in an optimizer step, the first of which is 0."""
        return cubic_share(step, steps, self.begin, self.end)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Put gates into the model, and check a checkpoint that is resumed."""
        assert model is not None
        self._check_resumed(checkpoint_folder(args, state) / PLAN_FILE)
        inner = transformer_of(model)
        local = self.plan.local(current_plan(inner))
        self._hooks.close()
        self._gates = gates = self._hooks.enter_context(gated(inner))
        importance = self.importance or magnitude(inner)
        _check_importance(importance, gates.heads, gates.ffn)
        kept = {place: (set(heads), set(ffn)) for place, heads, ffn in local}
        self._closing = [
            _least_first(gates.heads, importance.heads, {place: heads for place, (heads, _) in kept.items()}),
            _least_first(gates.ffn, importance.ffn, {place: ffn for place, (_, ffn) in kept.items()}),
        ]
        layers = encoder_layers(inner)
        self._fading = set(range(len(layers))) - kept.keys()
        for place in sorted(self._fading):
            hook = layers[place].register_forward_hook(self._fade, with_kwargs=True)
            self._hooks.callback(hook.remove)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close what is due."""
        self.close(self.share(state.global_step, state.max_steps))

    def close(self, share: float) -> None:
        """Close this share of what goes, the least important first, and open the rest."""
        self._share = share
        for order in self._closing:
            closed = round(share * len(order))
            for number, (gate, index) in enumerate(order):
                gate[index] = float(number >= closed)

    def alive(self, model: PreTrainedModel) -> PruningPlan:
        """What a model has left at this step: closed heads and neurons count as gone, and layers that faded out."""
        current = current_plan(model)
        if self._gates is None:
            return current
        layers = []
        for place, layer in enumerate(current.layers):
            if place in self._fading and self._share == 1:
                continue
            heads, ffn = (gate[place].tolist() for gate in (self._gates.heads, self._gates.ffn))
            layers.append(LayerPlan(layer.layer, _open(layer.heads, heads), _open(layer.ffn, ffn)))
        return replace(current, layers=tuple(layers))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Leave the plan in the checkpoint."""
        if state.is_world_process_zero:
            self.plan.save(checkpoint_folder(args, state) / PLAN_FILE)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """Cut the model in place, also where training ended early."""
        assert model is not None
        self._hooks.close()
        self._gates, self._closing = None, []
        inner = transformer_of(model)
        names = {id(parameter): name for name, parameter in inner.named_parameters()}
        origin = _origins(inner, self.plan)
        apply_plan(inner, self.plan)
        if optimizer is not None:
            _keep_alive(optimizer, names, {origin(name): parameter for name, parameter in inner.named_parameters()})

    def _check_resumed(self, path: Path) -> None:
        if path.is_file() and (other := PruningPlan.load(path)) != self.plan:
            raise PlanError(
                "The checkpoint was made on the way to another plan",
                value=f"{len(self.plan.layers)} layers in this plan, {len(other.layers)} in that of {path.parent}",
                expected="the plan that the training began with",
                remedy=f"resume with PruningPlan.load(Path({str(path)!r})), or begin anew in another output_dir",
            )

    def _fade(self, _layer: nn.Module, positional: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        hidden = positional[0] if positional else named["hidden_states"]
        if isinstance(output, tuple):
            return (torch.lerp(output[0], hidden, self._share), *output[1:])
        return torch.lerp(output, hidden, self._share)


def _check_importance(importance: Importance, heads: list[Tensor], ffn: list[Tensor]) -> None:
    for name, given, gates in (("heads", importance.heads, heads), ("ffn", importance.ffn, ffn)):
        found, wanted = [len(scores) for scores in given], [len(gate) for gate in gates]
        if found != wanted:
            raise PlanError(
                f"The importance is not that of this model's {name}",
                value=f"{found} for each layer",
                expected=f"{wanted}",
                remedy="measure it on the model that is trained, as it is before training",
            )


def _open(numbers: tuple[int, ...], gate: list[float]) -> tuple[int, ...]:
    return tuple(number for number, factor in zip(numbers, gate, strict=True) if factor)


def _least_first(gates: list[Tensor], importance: list[Tensor], kept: dict[int, set[int]]) -> list[tuple[Tensor, int]]:
    """Gate and index of every structure that goes and whose layer stays, the least important first."""
    going = [
        (float(importance[place][index]), place, index)
        for place, alive in kept.items()
        for index in range(len(gates[place]))
        if index not in alive
    ]
    return [(gates[place], index) for _, place, index in sorted(going)]


def _origins(model: PreTrainedModel, plan: PruningPlan) -> Callable[[str], str]:
    """A function from a parameter's name in the pruned model to that in this one, where layers have other numbers."""
    prefix = f"{architecture_of(model.config).layers}."
    places = [place for place, _, _ in plan.local(current_plan(model))]

    def origin(name: str) -> str:
        if not name.startswith(prefix):
            return name
        number, _, rest = name.removeprefix(prefix).partition(".")
        return f"{prefix}{places[int(number)]}.{rest}"

    return origin


def _keep_alive(optimizer: Optimizer, names: dict[int, str], alive: dict[str, nn.Parameter]) -> None:
    """Give an optimizer the parameters of the pruned model, each in its group; what it knew of the old ones goes."""
    for group in optimizer.param_groups:
        found = [alive.get(names.get(id(parameter), "")) for parameter in group["params"]]
        group["params"][:] = [parameter for parameter in found if parameter is not None]
    optimizer.state.clear()
