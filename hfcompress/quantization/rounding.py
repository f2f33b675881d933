"""Fake quantization to int8 in PyTorch: what a linear layer computes with weights and inputs of 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from hfcompress.models.hooks import replaced_forward
from hfcompress.utils.machine import SATURATING_TARGETS, cpu_target

WEIGHT_STEPS, REDUCED_STEPS, INPUT_STEPS = 127, 64, 255

Range = tuple[float, float]
"""Minimum and maximum."""


def weight_steps(reduce_range: bool | None) -> int:
    """Quantization steps between 0 and the largest weight.

    Args:
        reduce_range: Whether weights have 7 bits; None if this CPU requires it.
    """
    reduced = cpu_target() in SATURATING_TARGETS if reduce_range is None else reduce_range
    return REDUCED_STEPS if reduced else WEIGHT_STEPS


@contextmanager
def fake_quantized(
    module: nn.Linear | nn.Embedding, per_channel: bool, steps: int, limits: Range | None = None
) -> Iterator[None]:
    """Within the block, a layer computes as in int8.

    Args:
        module: A linear layer, or an embedding, which has one scale for the whole table.
        per_channel: One weight scale for each output channel of a linear layer.
        steps: As for `rounded_weight`.
        limits: As for `rounded_input`.
    """
    weight = rounded_weight(module.weight.detach(), per_channel and isinstance(module, nn.Linear), steps)

    def forward(inputs: Tensor) -> Tensor:
        if isinstance(module, nn.Embedding):
            return functional.embedding(inputs, weight)
        return functional.linear(rounded_input(inputs, limits), weight, module.bias)

    with replaced_forward(module, forward):
        yield


def rounded_weight(weight: Tensor, per_channel: bool = True, steps: int = WEIGHT_STEPS) -> Tensor:
    """A weight in symmetric int8: multiples of max |w| / steps, with a straight-through gradient.

    Args:
        weight: Shape `(outputs, inputs)`.
        per_channel: One scale for each output channel.
        steps: Steps between 0 and the largest magnitude: 127, or 64 with a reduced range.
    """
    values = weight.float()
    largest = values.detach().abs()
    largest = largest.amax(1) if per_channel else largest.amax().expand(len(weight))
    scale = largest.clamp(min=torch.finfo(torch.float32).tiny * steps) / steps
    zeros = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(values, scale, zeros, 0, -steps, steps).to(weight.dtype)


def rounded_input(inputs: Tensor, limits: Range | None = None) -> Tensor:
    """Inputs in asymmetric uint8 that represents 0 exactly; values beyond the limits are clipped.

    Args:
        inputs: Any shape.
        limits: Minimum and maximum; by default those of the inputs.
    """
    values = inputs.float()
    found = values.detach().aminmax() if limits is None else (torch.tensor(limit) for limit in limits)
    low, high = (bound.to(values) for bound in found)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / INPUT_STEPS).clamp(min=torch.finfo(torch.float32).tiny)
    zero = (-low / scale).round().clamp(0, INPUT_STEPS).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, INPUT_STEPS).to(inputs.dtype)
