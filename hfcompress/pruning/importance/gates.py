"""Gates: a factor on every head and FFN neuron, to evaluate or differentiate pruning without surgery."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hfcompress.models.architectures import architecture_of, encoder_layers, head_size, projection
from hfcompress.models.hooks import hooks


@dataclass
class Gates:
    """Factors for the heads and FFN neurons of one model.

    Attributes:
        heads: For each layer a tensor `(heads,)`; multiplies the output of each head, the input of W_O.
        ffn: For each layer a tensor `(neurons,)`; multiplies the output of each FFN neuron, the input of W_2.
    """

    heads: list[Tensor]
    ffn: list[Tensor]

    def all(self) -> list[Tensor]:
        """Gates of the heads of all layers, then of the FFN neurons of all layers."""
        return [*self.heads, *self.ffn]


@contextmanager
def gated(model: PreTrainedModel, requires_grad: bool = False) -> Iterator[Gates]:
    """Put gates, initially 1, into a model within the block.

    A gate of 0 gives the same scores as pruning its head or neuron.

    Args:
        model: A sequence-classification model of a supported family, pruned or not.
        requires_grad: Whether to compute gradients with respect to the gates.
    """
    architecture = architecture_of(model.config)
    gates = Gates([], [])
    handles = []
    for layer in encoder_layers(model):
        for path, width, gates_of_kind in (
            (architecture.attention_output, head_size(model.config), gates.heads),
            (architecture.ffn_out, 1, gates.ffn),
        ):
            module = projection(layer, path)
            count = 0 if module is None else module.in_features // width
            gate = torch.ones(count, device=model.device, requires_grad=requires_grad)
            gates_of_kind.append(gate)
            if module is not None:
                handles.append(module.register_forward_pre_hook(partial(_multiply, gate, width)))
    with hooks(handles):
        yield gates


def _multiply(gate: Tensor, width: int, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    values = inputs[0]
    return (values * gate.repeat_interleave(width).to(values.dtype), *inputs[1:])
