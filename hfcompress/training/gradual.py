"""Gradual pruning in any `Trainer`: gates close along a cubic schedule, and the model is pruned when training ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, TrainerControl, TrainerState, TrainingArguments

from hfcompress.errors import PlanError
from hfcompress.models.architectures import architecture_of, encoder_layers
from hfcompress.models.hooks import hooks
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import apply_plan, current_plan
from hfcompress.pruning.importance.gates import Gates, gated
from hfcompress.pruning.importance.importance import Importance
from hfcompress.pruning.importance.scores import magnitude
from hfcompress.training.callbacks import transformer_of
from hfcompress.training.schedule import cubic_share
from hfcompress.training.stateful import StatefulCallback

logger = logging.getLogger(__name__)

Order = list[tuple[int, int]]
"""Layers and indices of pruned heads or neurons, the least important first."""


class GradualPruningCallback(StatefulCallback):
    """Prunes a model gradually to a plan while it trains.

    Heads and FFN neurons that the plan prunes are gated, the least important first; each kind has its own order. The
    closed share follows the cubic schedule 1 - (1 - t)^3 (Zhu and Gupta, 2017), with t from 0 to 1 between `begin` and
    `end`. The output of a pruned layer is interpolated towards its input. At the end of the schedule the gated model
    therefore has the scores of the pruned one, and the rest of the training is recovery. When training ends, the model
    is pruned in place, and the optimizer keeps only the remaining parameters.

    A checkpoint in the middle of the schedule resumes bit-equal, in the order of pruning that the training began with;
    see `StatefulCallback`. Checkpoints have all weights. With `load_best_model_at_end`, evaluations before the end of
    the schedule would be those of a larger model, so delay them (`eval_delay`).

    Args:
        plan: What is kept, in the numbering of the original model; a dict is one of `PruningPlan.to_dict`.
        importance: Importance of heads and neurons; by default the magnitude of the weights when training begins. A
            resumed training does not use it.
        begin: Share of all steps at which the schedule begins.
        end: Share of all steps at which it is complete.

    Raises:
        PlanError: `begin` and `end` are no schedule. When training begins: the plan keeps something that the model does
            not have, the importance is that of another model, or the resumed checkpoint was made with another plan.
    """

    def __init__(
        self, plan: PruningPlan, importance: Importance | None = None, begin: float = 0.0, end: float = 0.5
    ) -> None:
        if not 0 <= begin < end <= 1:
            raise PlanError(
                "begin and end are no schedule of gradual pruning",
                value=f"from {begin} to {end} of all steps",
                expected="0 <= begin < end <= 1",
                remedy="correct begin and end",
            )
        self.plan = PruningPlan.from_dict(plan) if isinstance(plan, dict) else plan
        self.importance = importance
        self.begin, self.end = begin, end
        self._hooks = ExitStack()
        self._gates: Gates | None = None
        self._fading: set[int] = set()
        self._orders: list[Order] = []
        self._share = 0.0

    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor, without the importance."""
        return {"plan": self.plan.to_dict(), "begin": self.begin, "end": self.end}

    def progress(self) -> dict[str, Any]:
        """The orders in which heads and neurons are pruned, as text of `layer:index`."""
        return {"orders": [" ".join(f"{layer}:{index}" for layer, index in order) for order in self._orders]}

    @property
    def is_active(self) -> bool:
        """Whether a model has the gates of this callback."""
        return self._gates is not None

    def share(self, step: int, steps: int) -> float:
        """Closed share of the pruned structures at an optimizer step; the first step is 0."""
        return cubic_share(step, steps, self.begin, self.end)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add gates to the model, and restore the orders of a resumed checkpoint."""
        self._hooks.close()
        inner = transformer_of(kwargs["model"])
        local = self.plan.local(current_plan(inner))
        kept = [{index: set(heads) for index, heads, _ in local}, {index: set(ffn) for index, _, ffn in local}]
        with ExitStack() as added:
            saved = self.begin_training(state, kwargs["model"])
            added.callback(self.end_training)
            gates = added.enter_context(gated(inner))
            pruned = [_pruned(each, remaining) for each, remaining in zip((gates.heads, gates.ffn), kept, strict=True)]
            self._orders = self._sorted(inner, gates, pruned) if saved is None else _checked(saved["orders"], pruned)
            layers = encoder_layers(inner)
            self._fading = set(range(len(layers))) - {index for index, _, _ in local}
            fading = [layers[index].register_forward_hook(self._fade, with_kwargs=True) for index in self._fading]
            added.enter_context(hooks(fading))
            self._gates, self._hooks = gates, added.pop_all()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close gates according to the schedule."""
        self.close(self.share(state.global_step, state.max_steps))

    def close(self, share: float) -> None:
        """Close this share of the gates of pruned structures, the least important first, and open the others."""
        self._share = share
        if self._gates is None:
            return
        for gates, order in zip((self._gates.heads, self._gates.ffn), self._orders, strict=True):
            closed = round(share * len(order))
            for number, (layer, index) in enumerate(order):
                gates[layer][index] = float(number >= closed)

    def remaining_plan(self, model: PreTrainedModel) -> PruningPlan:
        """The plan of the gated model at this step: without closed heads and neurons, and completely faded layers."""
        current = current_plan(model)
        if self._gates is None:
            return current
        layers = []
        for index, layer in enumerate(current.layers):
            if index in self._fading and self._share == 1:
                continue
            heads, ffn = (gate[index].tolist() for gate in (self._gates.heads, self._gates.ffn))
            layers.append(LayerPlan(layer.layer, _open(layer.heads, heads), _open(layer.ffn, ffn)))
        return replace(current, layers=tuple(layers))

    def alive(self, model: PreTrainedModel) -> PruningPlan:
        """Deprecated name of `remaining_plan`."""
        logger.warning("alive is deprecated and will be removed in the next version: use remaining_plan")
        return self.remaining_plan(model)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Prune the model in place, also if training ended early."""
        self._hooks.close()
        self._gates, self._orders = None, []
        inner = transformer_of(kwargs["model"])
        names = {id(parameter): name for name, parameter in inner.named_parameters()}
        origin = _origins(inner, self.plan)
        apply_plan(inner, self.plan)
        if (optimizer := kwargs.get("optimizer")) is not None:
            _keep_remaining(optimizer, names, {origin(name): part for name, part in inner.named_parameters()})

    def _sorted(self, model: PreTrainedModel, gates: Gates, pruned: list[Order]) -> list[Order]:
        importance = self.importance or magnitude(model)
        _check_importance(importance, gates.heads, gates.ffn)
        scores = importance.heads, importance.ffn
        return [_least_first(*each) for each in zip(pruned, scores, strict=True)]

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
                remedy="compute it for the model that is trained, before training",
            )


def _open(numbers: tuple[int, ...], gate: list[float]) -> tuple[int, ...]:
    return tuple(number for number, factor in zip(numbers, gate, strict=True) if factor)


def _pruned(gates: list[Tensor], kept: dict[int, set[int]]) -> Order:
    """Layers and indices of the pruned structures of the kept layers."""
    return [
        (layer, index) for layer, inside in kept.items() for index in range(len(gates[layer])) if index not in inside
    ]


def _least_first(pruned: Order, scores: list[Tensor]) -> Order:
    return sorted(pruned, key=lambda item: (float(scores[item[0]][item[1]]), item))


def _checked(saved: list[str], pruned: list[Order]) -> list[Order]:
    """The orders of a checkpoint."""
    pairs = [[item.split(":") for item in text.split()] for text in saved]
    orders = [[(int(layer), int(index)) for layer, index in order] for order in pairs]
    if [sorted(order) for order in orders] != [sorted(order) for order in pruned]:
        raise PlanError(
            "The checkpoint prunes other heads or FFN neurons than the plan does in this model",
            value=f"{[len(order) for order in pruned]} heads and neurons by the plan",
            expected=f"the {[len(order) for order in orders]} of the checkpoint",
            remedy="resume with the model that the training began with",
        )
    return orders


def _origins(model: PreTrainedModel, plan: PruningPlan) -> Callable[[str], str]:
    """A function that maps a parameter's name in the pruned model to its name in this one: layer indices differ."""
    prefix = f"{architecture_of(model.config).layers}."
    indices = [index for index, _, _ in plan.local(current_plan(model))]

    def origin(name: str) -> str:
        if not name.startswith(prefix):
            return name
        number, _, rest = name.removeprefix(prefix).partition(".")
        return f"{prefix}{indices[int(number)]}.{rest}"

    return origin


def _keep_remaining(optimizer: Optimizer, names: dict[int, str], remaining: dict[str, nn.Parameter]) -> None:
    """Replace an optimizer's parameters by those of the pruned model, each in its group, and clear its state."""
    for group in optimizer.param_groups:
        found = [remaining.get(names.get(id(parameter), "")) for parameter in group["params"]]
        group["params"][:] = [parameter for parameter in found if parameter is not None]
    optimizer.state.clear()
