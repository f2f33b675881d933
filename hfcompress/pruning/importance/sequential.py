"""Sequential weight update: least squares layer by layer, on the outputs of the pruned layers below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hfcompress.data.lists import model_inputs
from hfcompress.models.architectures import Architecture, architecture_of, encoder_layers
from hfcompress.models.hooks import evaluation_mode, hooks, replaced_forward
from hfcompress.models.plan import PruningPlan
from hfcompress.models.surgery import current_plan, pruned_copy
from hfcompress.models.wrappers import unwrapped
from hfcompress.pruning.importance.margins import TokenWeights
from hfcompress.pruning.importance.moments import Fit
from hfcompress.utils.device import moved
from hfcompress.utils.progress import progress_bar


@dataclass
class LayerCalls:
    """Arguments with which the encoder calls its layers for one batch.

    Attributes:
        hidden: Input of the first layer, shape `(pairs, tokens, hidden)`.
        arguments: For each layer, positional and keyword arguments after the hidden states.
        tokens: True for real tokens, shape `(pairs, tokens)`.
    """

    hidden: Tensor
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]]
    tokens: Tensor

    def run(self, layer: nn.Module, index: int, hidden: Tensor) -> Tensor:
        """Output of `layer` for hidden states, with the other arguments of layer `index`."""
        positional, named = self.arguments[index]
        output = layer(hidden, *positional, **named)
        return output[0] if isinstance(output, tuple) else output


class _StopForward(Exception):
    """Ends a forward pass early."""


@torch.inference_mode()
def sequential_update(
    model: PreTrainedModel,
    plan: PruningPlan,
    weights: dict[str, Tensor],
    batches: Sequence[dict[str, Tensor]],
    token_weights: Sequence[TokenWeights] | None = None,
    damping: float = 1e-1,
    progress: bool = True,
) -> dict[str, Tensor]:
    """Least-squares update of a pruned model's weights, from the lowest sublayer to the highest.

    The inputs X' of a sublayer are those of the pruned model, with all lower layers updated already. Its output is
    fitted to `W x + r - r'`: the output of the dense model, plus the difference between the residual streams r and r'
    of the dense and the pruned model. Each sublayer thus compensates errors of the layers below it. The fit is damped
    towards the given weights.

    Args:
        model: The dense model; it is not changed.
        plan: What is kept, in the numbering of the original model.
        weights: Weights to start from, by their names in the pruned model.
        batches: Batches of `RankingCollator`.
        token_weights: Token weights of each batch from `margin_gradients`; by default all real tokens count alike.
        damping: Damping, as a share of the mean of H's diagonal.
        progress: Show a progress bar.

    Returns:
        The weights of all W_O and W_2, by their names in the pruned model.
    """
    model = unwrapped(model)
    architecture = architecture_of(model.config)
    student = pruned_copy(model, plan, weights).eval()
    with evaluation_mode(model):
        calls = [layer_calls(model, batch) for batch in batches]
        dense = [call.hidden for call in calls]
        pruned = dense
        kept = [index for index, _, _ in plan.local(current_plan(model))]
        result: dict[str, Tensor] = {}
        below = 0
        bar = progress_bar(kept, desc="sequential update", unit="layer", disable=not progress, leave=False)
        for new, index in enumerate(bar):
            for dropped in range(below, index):
                dense = _advance(encoder_layers(model)[dropped], dropped, calls, dense)
            below = index + 1
            targets, dense = _targets(architecture, encoder_layers(model)[index], index, calls, dense)
            layer = encoder_layers(student)[new]
            for path, outputs in targets.items():
                updated = _updated_weights(
                    architecture,
                    layer,
                    path,
                    index=index,
                    calls=calls,
                    hidden=pruned,
                    targets=outputs,
                    token_weights=[batch[index, path] for batch in token_weights] if token_weights else None,
                    damping=damping,
                )
                result |= {f"{architecture.layers}.{new}.{path}.{name}": tensor for name, tensor in updated.items()}
            pruned = _advance(layer, index, calls, pruned)
    return result


def layer_calls(model: PreTrainedModel, batch: dict[str, Tensor]) -> LayerCalls:
    """Record the arguments of every layer.

    They do not depend on hidden states, so all layers but the first pass on the output of the first.
    """
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    first: list[Any] = []

    def record(_module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append((positional, named))

    layers = encoder_layers(model)
    handles = [layer.register_forward_pre_hook(record, with_kwargs=True) for layer in layers]
    handles.append(layers[0].register_forward_hook(lambda _module, _inputs, output: first.append(output)))
    with hooks(handles), ExitStack() as stack:
        for layer in layers[1:]:
            stack.enter_context(replaced_forward(layer, lambda *_args, **_kwargs: first[0]))
        inputs = moved(model_inputs(batch), model.device)
        model(**inputs)
    arguments = [(positional[1:], named) for positional, named in seen]
    return LayerCalls(seen[0][0][0], arguments, inputs["attention_mask"].bool())


def _advance(layer: nn.Module, index: int, calls: list[LayerCalls], hidden: list[Tensor]) -> list[Tensor]:
    return [call.run(layer, index, states) for call, states in zip(calls, hidden, strict=True)]


def _targets(
    architecture: Architecture, layer: nn.Module, index: int, calls: list[LayerCalls], hidden: list[Tensor]
) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
    """For each batch the outputs of W_O and W_2 of a dense layer plus their residuals, and the layer's output."""
    targets: dict[str, list[Tensor]] = {architecture.attention_output: [], architecture.ffn_out: []}
    after = []
    for call, states in zip(calls, hidden, strict=True):
        with _recorded(architecture, layer) as seen:
            after.append(call.run(layer, index, states))
        for path, outputs in targets.items():
            outputs.append((seen[path][1] + _residual(architecture, path, states, seen))[call.tokens])
    return targets, after


def _residual(architecture: Architecture, path: str, states: Tensor, seen: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
    """The residual stream to which the output of a sublayer is added."""
    if path == architecture.attention_output:
        return states
    if architecture.attention_norm:  # pre-norm: the stream is the plain sum
        attention = seen.get(architecture.attention_output)
        return states if attention is None else states + attention[1]
    return seen[architecture.ffn_in][0]


@contextmanager
def _recorded(
    architecture: Architecture, layer: nn.Module, until: str | None = None
) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Record input and output of W_O, W_1 and W_2, by path; the forward pass ends after `until`."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def record(path: str, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[path] = inputs[0], output
        if path == until:
            raise _StopForward

    paths = (architecture.attention_output, architecture.ffn_in, architecture.ffn_out)
    handles = [layer.get_submodule(path).register_forward_hook(partial(record, path)) for path in paths]
    with suppress(_StopForward), hooks(handles):
        yield seen


def _updated_weights(
    architecture: Architecture,
    layer: nn.Module,
    path: str,
    *,
    index: int,
    calls: list[LayerCalls],
    hidden: list[Tensor],
    targets: list[Tensor],
    token_weights: list[Tensor] | None,
    damping: float,
) -> dict[str, Tensor]:
    """Fit W_O or W_2 of a pruned layer to its targets, and load the result into the layer.

    Returns:
        The new weight and bias; empty if pruning left neither.
    """
    module = layer.get_submodule(path)
    fit = Fit(module)
    if not fit.weight.shape[1]:
        return {}
    for number, (call, states, target) in enumerate(zip(calls, hidden, targets, strict=True)):
        with _recorded(architecture, layer, until=path) as seen:
            call.run(layer, index, states)
        residual = _residual(architecture, path, states, seen)[call.tokens]
        inputs = seen[path][0][call.tokens] if isinstance(module, nn.Linear) else residual[:, :0]
        fit.add(inputs, target - residual, token_weights[number][call.tokens] if token_weights else None)
    updated = fit.solve(damping)
    state = {name: updated[name].to(old) for name, old in module.state_dict().items()}
    module.load_state_dict(state, assign=True)  # new tensors, since the old biases are shared with the dense model
    return updated
