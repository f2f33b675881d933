"""Compare an estimate of the peak memory of a step with what the device has, before the step begins."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from hfcompress.errors import DeviceError
from hfcompress.utils.device import CPU, device_title, memory_of
from hfcompress.utils.log import warn_once
from hfcompress.utils.machine import memory_limit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryEstimate:
    """Estimate of the memory of a step.

    Attributes:
        step: The step, as the subject of a sentence, such as `Pruning`.
        least: Bytes of what is counted exactly: weights, gradients, optimizer states, second moments.
        peak: Bytes at the peak, with activations, copies and temporary tensors.
        counted: What is in `least`, for the error.
        remedy: What makes it smaller.
    """

    step: str
    least: int
    peak: int
    counted: str
    remedy: str


def require_memory(estimate: MemoryEstimate, device: torch.device) -> None:
    """Check that a step fits into memory, and warn where it may not.

    It is an error only if what is counted exactly exceeds all memory of the device, or that of the container, with swap
    space: then no other process is to blame, and no attempt can succeed. Activations depend on the lengths of the
    texts, and what is available on other processes, so an estimate beyond what is available is a warning.

    Args:
        estimate: The estimate.
        device: Where the step runs.

    Raises:
        DeviceError: The step cannot fit.
    """
    memory, place = memory_of(device), _place(device)
    if estimate.least > memory.total:
        raise DeviceError(
            f"{estimate.step} needs more memory than {place} has",
            value=f"at least {_gb(estimate.least)} for {estimate.counted}, about {_gb(estimate.peak)} at the peak",
            expected=f"at most {_gb(memory.total)}",
            remedy=estimate.remedy,
        )
    if estimate.peak > memory.free:
        warn_once(
            logger,
            f"{estimate.step} may need up to {_gb(estimate.peak)} of memory, and {_gb(memory.free)} of {place} are "
            f"available: the system may end it. To need less, {estimate.remedy}",
        )


def _place(device: torch.device) -> str:
    if device.type != CPU:
        return device_title(device)
    return "this machine" if memory_limit().source == "machine" else "this container"


def _gb(number: int) -> str:
    return f"{number / 1e9:.1f} GB"
