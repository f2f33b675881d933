"""Hooks that are registered for the duration of a block."""

from __future__ import annotations

import pytest
from torch import nn, ones

from hfcompress.models.hooks import hooks


def test_hooks_are_removed_also_after_an_error() -> None:
    module, calls = nn.Linear(2, 2), []
    handles = [module.register_forward_hook(lambda *_: calls.append(1)) for _ in range(2)]
    with pytest.raises(RuntimeError, match="stop"), hooks(handles):
        module(ones(1, 2))
        raise RuntimeError("stop")
    module(ones(1, 2))
    assert len(calls) == 2
