"""Estimates of memory, compared with what there is."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import psutil
import pytest
import torch

from hfcompress.errors import DeviceError
from hfcompress.utils import memory
from hfcompress.utils.device import Memory, memory_of
from hfcompress.utils.machine import memory_limit
from hfcompress.utils.memory import MemoryEstimate, require_memory

CPU = torch.device("cpu")
ESTIMATE = MemoryEstimate("Recovery", 3 * 10**9, 8 * 10**9, "weights and gradients", "lower queries_per_batch")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_of", lambda device: Memory(5 * 10**9, 6 * 10**9))


def test_what_can_never_fit_is_an_error(machine: None) -> None:
    with pytest.raises(DeviceError) as raised:
        require_memory(replace(ESTIMATE, least=7 * 10**9), CPU)
    assert re.fullmatch(
        r"Recovery needs more memory than this (machine|container) has\. Got: 'at least 7\.0 GB for weights and "
        r"gradients, about 8\.0 GB at the peak'\. Expected: at most 6\.0 GB\. Remedy: lower queries_per_batch\.",
        str(raised.value),
    )


def test_what_may_not_fit_is_a_warning(machine: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        require_memory(replace(ESTIMATE, step="Distillation"), CPU)
        require_memory(replace(ESTIMATE, step="Export", peak=4 * 10**9), CPU)
    (message,) = caplog.messages
    assert message.startswith("Distillation may need up to 8.0 GB of memory, and 5.0 GB of this ")
    assert message.endswith("are available: the system may end it. To need less, lower queries_per_batch")


def test_memory_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    found = memory_of("cpu")
    assert 0 < found.free <= found.total == memory_limit().amount + psutil.swap_memory().total
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3, 4))
    assert memory_of(torch.device("cuda", 1)) == Memory(3, 4)
