"""Settle a pruned model layer by layer: each sublayer sees what the pruned layers below it put out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hfcompress.architectures import Architecture, architecture_of, encoder_layers
from hfcompress.importance.margins import Weights
from hfcompress.importance.moments import Fit
from hfcompress.plan import PruningPlan
from hfcompress.progress import progress_bar
from hfcompress.surgery import current_plan, pruned_copy
from hfcompress.training.trainer import RANKING_COLUMNS


@dataclass
class Calls:
    """One batch on its way through the encoder.

    Attributes:
        hidden: Input of the first layer, shape `(pairs, tokens, hidden)`.
        arguments: For each layer all other arguments of its call.
        tokens: True for real tokens, shape `(pairs, tokens)`.
    """

    hidden: Tensor
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]]
    tokens: Tensor

    def run(self, layer: nn.Module, number: int, hidden: Tensor) -> Tensor:
        """Output of a layer that stands in the place of layer `number`."""
        positional, named = self.arguments[number]
        output = layer(hidden, *positional, **named)
        return output[0] if isinstance(output, tuple) else output


class _Done(Exception):
    """Ends a forward pass that has given what was wanted."""


@torch.inference_mode()
def resettled(
    model: PreTrainedModel,
    plan: PruningPlan,
    weights: dict[str, Tensor],
    batches: Sequence[dict[str, Tensor]],
    token_weights: Sequence[Weights] | None = None,
    damping: float = 1e-1,
    progress: bool = True,
) -> dict[str, Tensor]:
    """Weights of a pruned model, settled from the lowest sublayer to the highest.

    The inputs X' of a sublayer are measured in the pruned model, whose lower layers are settled already, and its
    output is fitted to `W x + r - r'`: the dense model's output, and the difference of the residual streams r and r'
    that meet it. So each sublayer makes up, as far as it can, for what was lost below it. The fit is damped towards
    the weights given.

    Args:
        model: The dense model.
        plan: What is kept, in the numbering of the first teacher.
        weights: Weights to begin with, by their names in the pruned model.
        batches: Batches of `RankingCollator`.
        token_weights: For each batch the tokens that `margin_gradients` gives; all real tokens alike where left out.
        damping: Share of the mean of H's diagonal that holds a weight to its first value.
        progress: Show a progress bar.

    Returns:
        The weights of all W_O and W_2, by their names in the pruned model.
    """
    architecture = architecture_of(model.config)
    student = pruned_copy(model, plan, weights).eval()
    training = model.training
    model.eval()
    calls = [_calls(model, batch) for batch in batches]
    dense = [call.hidden for call in calls]
    pruned = dense
    places = [place for place, _, _ in plan.local(current_plan(model))]
    result: dict[str, Tensor] = {}
    below = 0
    for new, place in enumerate(progress_bar(places, desc="settling", unit="layer", disable=not progress, leave=False)):
        for dropped in range(below, place):
            dense = _advance(encoder_layers(model)[dropped], dropped, calls, dense)
        below = place + 1
        targets, dense = _targets(architecture, encoder_layers(model)[place], place, calls, dense)
        layer = encoder_layers(student)[new]
        for path, wanted in targets.items():
            shares = [batch[place, path] for batch in token_weights] if token_weights else None
            settled = _settle(architecture, layer, path, place, calls, pruned, wanted, shares, damping)
            result |= {f"{architecture.layers}.{new}.{path}.{name}": tensor for name, tensor in settled.items()}
        pruned = _advance(layer, place, calls, pruned)
    model.train(training)
    return result


def _calls(model: PreTrainedModel, batch: dict[str, Tensor]) -> Calls:
    """What every layer is called with, from one pass of the dense model."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def note(_module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append((positional, named))

    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in encoder_layers(model)]
    try:
        model(**{name: value for name, value in batch.items() if name not in RANKING_COLUMNS})
    finally:
        for hook in hooks:
            hook.remove()
    arguments = [(positional[1:], named) for positional, named in seen]
    return Calls(seen[0][0][0], arguments, batch["attention_mask"].bool())


def _advance(layer: nn.Module, place: int, calls: list[Calls], hidden: list[Tensor]) -> list[Tensor]:
    return [call.run(layer, place, states) for call, states in zip(calls, hidden, strict=True)]


def _targets(
    architecture: Architecture, layer: nn.Module, place: int, calls: list[Calls], hidden: list[Tensor]
) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
    """What W_O and W_2 of a dense layer add up to with their residuals, for each batch; and the layer's output."""
    targets: dict[str, list[Tensor]] = {architecture.attention_output: [], architecture.ffn_out: []}
    after = []
    for call, states in zip(calls, hidden, strict=True):
        with _watched(architecture, layer) as seen:
            after.append(call.run(layer, place, states))
        for path, found in targets.items():
            found.append((seen[path][1] + _residual(architecture, path, states, seen))[call.tokens])
    return targets, after


def _residual(architecture: Architecture, path: str, states: Tensor, seen: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
    """The stream to which a sublayer's output is added."""
    if path == architecture.attention_output:
        return states
    if architecture.attention_norm:  # normalized before the sublayers, so the stream is the plain sum
        attention = seen.get(architecture.attention_output)
        return states if attention is None else states + attention[1]
    return seen[architecture.ffn_in][0]


@contextmanager
def _watched(
    architecture: Architecture, layer: nn.Module, until: str | None = None
) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Note what goes into and comes out of W_O, W_1 and W_2; end the pass behind `until`."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def note(path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[path] = inputs[0], output
            if path == until:
                raise _Done

        return hook

    paths = (architecture.attention_output, architecture.ffn_in, architecture.ffn_out)
    hooks = [layer.get_submodule(path).register_forward_hook(note(path)) for path in paths]
    try:
        yield seen
    except _Done:
        return
    finally:
        for hook in hooks:
            hook.remove()


def _settle(
    architecture: Architecture,
    layer: nn.Module,
    path: str,
    place: int,
    calls: list[Calls],
    hidden: list[Tensor],
    targets: list[Tensor],
    shares: list[Tensor] | None,
    damping: float,
) -> dict[str, Tensor]:
    """Fit W_O or W_2 of a pruned layer to its targets, in place.

    Returns:
        The new weight and bias, as far as the module has them.
    """
    module = layer.get_submodule(path)
    fit = Fit(module)
    if not fit.weight.shape[1]:
        return {}
    for number, (call, states, target) in enumerate(zip(calls, hidden, targets, strict=True)):
        with _watched(architecture, layer, until=path) as seen:
            call.run(layer, place, states)
        residual = _residual(architecture, path, states, seen)[call.tokens]
        inputs = seen[path][0][call.tokens] if isinstance(module, nn.Linear) else residual[:, :0]
        fit.add(inputs, target - residual, shares[number][call.tokens] if shares else None)
    settled = fit.solve(damping)
    state = {name: settled[name].to(old) for name, old in module.state_dict().items()}
    module.load_state_dict(state, assign=True)  # not into the tensors that are there: the dense model shares its biases
    return settled
