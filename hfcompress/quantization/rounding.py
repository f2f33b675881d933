"""The rounding of int8 in PyTorch: what a linear layer computes when its weight and its inputs have 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from hfcompress.machine import SATURATING_TARGETS, cpu_target

WEIGHT_STEPS, REDUCED_STEPS, INPUT_STEPS = 127, 64, 255

Range = tuple[float, float]
"""Least and largest value."""


def weight_steps(reduce_range: bool | None) -> int:
    """Steps between 0 and the largest weight.

    Args:
        reduce_range: Whether weights have 7 bits; None where this CPU needs it.
    """
    reduced = cpu_target() in SATURATING_TARGETS if reduce_range is None else reduce_range
    return REDUCED_STEPS if reduced else WEIGHT_STEPS


@contextmanager
def rounded(
    module: nn.Linear | nn.Embedding, per_channel: bool, steps: int, limits: Range | None = None
) -> Iterator[None]:
    """For the block, let a layer compute as int8 will.

    Args:
        module: A linear layer, or embeddings, which have one scale for the whole table.
        per_channel: One weight scale for each output channel of a linear layer.
        steps: As for `rounded_weight`.
        limits: As for `rounded_input`.
    """
    if isinstance(module, nn.Embedding):
        table = rounded_weight(module.weight.detach(), False, steps)

        def forward(inputs: Tensor) -> Tensor:
            return functional.embedding(inputs, table)
    else:
        weight, bias = rounded_weight(module.weight.detach(), per_channel, steps), module.bias

        def forward(inputs: Tensor) -> Tensor:
            return functional.linear(rounded_input(inputs, limits), weight, bias)

    setattr(module, "forward", forward)  # noqa: B010
    try:
        yield
    finally:
        del module.forward


def rounded_weight(weight: Tensor, per_channel: bool = True, steps: int = WEIGHT_STEPS) -> Tensor:
    """A weight as symmetric int8 holds it: multiples of max |w| / steps; the gradient is that of the weight itself.

    Args:
        weight: Shape `(outputs, inputs)`.
        per_channel: One scale for each output.
        steps: Steps between 0 and the largest magnitude: 127, or 64 with a reduced range.
    """
    values = weight.float()
    largest = values.detach().abs()
    largest = largest.amax(1) if per_channel else largest.amax().expand(len(weight))
    scale = largest.clamp(min=torch.finfo(torch.float32).tiny * steps) / steps
    zeros = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(values, scale, zeros, 0, -steps, steps).to(weight.dtype)


def rounded_input(inputs: Tensor, limits: Range | None = None) -> Tensor:
    """Inputs as asymmetric uint8 holds them, with 0 among the values; what lies beyond the limits is cut off.

    Args:
        inputs: Any shape.
        limits: Least and largest value; those of the inputs themselves where left out.
    """
    values = inputs.float()
    found = values.detach().aminmax() if limits is None else (torch.tensor(limit) for limit in limits)
    low, high = (bound.to(values) for bound in found)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / INPUT_STEPS).clamp(min=torch.finfo(torch.float32).tiny)
    zero = (-low / scale).round().clamp(0, INPUT_STEPS).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, INPUT_STEPS).to(inputs.dtype)
