"""Temporary changes of a model for the duration of a block: hooks, another `forward`, evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def hooks(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove the hooks of these handles when the block ends, also if it raises."""
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


@contextmanager
def replaced_forward(module: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """Within the block, a module has another `forward`; its hooks still run."""
    before = vars(module).get("forward")  # an enclosing block's
    module.forward = function
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


@contextmanager
def evaluation_mode(model: nn.Module, frozen: bool = False) -> Iterator[None]:
    """Keep a model in evaluation mode within the block; with `frozen`, its parameters need no gradients either."""
    training = model.training
    trainable = [parameter for parameter in model.parameters() if frozen and parameter.requires_grad]
    model.eval()
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        model.train(training)
