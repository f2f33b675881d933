"""Gates: a factor on every head and FFN neuron, so that removal can be tried or differentiated without surgery."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hfcompress.architectures import architecture_of, encoder_layers, head_size, projection


@dataclass
class Gates:
    """Factors for one model, in the order of its layers.

    Attributes:
        heads: For each layer a tensor `(heads,)`; multiplies what each head adds to the input of W_O.
        ffn: For each layer a tensor `(neurons,)`; multiplies each FFN neuron's output, the input of W_2.
    """

    heads: list[Tensor]
    ffn: list[Tensor]

    def all(self) -> list[Tensor]:
        """Heads of all layers, then FFN neurons of all layers."""
        return [*self.heads, *self.ffn]


@contextmanager
def gated(model: PreTrainedModel, requires_grad: bool = False) -> Iterator[Gates]:
    """Put gates, all one, into a model for the block.

    A gate of 0 gives the same scores as pruning the structure.

    Args:
        model: A sequence-classification model of a supported family, pruned or not.
        requires_grad: Whether gradients with respect to the gates are wanted.
    """
    architecture = architecture_of(model.config)
    gates = Gates([], [])
    hooks = []
    for layer in encoder_layers(model):
        for path, width, store in (
            (architecture.attention_output, head_size(model.config), gates.heads),
            (architecture.ffn_out, 1, gates.ffn),
        ):
            module = projection(layer, path)
            count = 0 if module is None else module.in_features // width
            gate = torch.ones(count, device=model.device, requires_grad=requires_grad)
            store.append(gate)
            if module is not None:
                hooks.append(module.register_forward_pre_hook(_multiplier(gate, width)))
    try:
        yield gates
    finally:
        for hook in hooks:
            hook.remove()


def _multiplier(gate: Tensor, width: int) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        values = inputs[0]
        return (values * gate.repeat_interleave(width).to(values.dtype), *inputs[1:])

    return hook
