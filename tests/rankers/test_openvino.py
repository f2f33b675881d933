"""The first batches of OpenVINO graphs in a process are computed by one thread."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hfcompress.rankers import openvino as module


def together(threads: int) -> int:
    """The largest number of threads that compute at the same time."""
    start, lock = threading.Barrier(threads), threading.Lock()
    inside: list[int] = []
    most = 0

    def compute(number: int) -> None:
        nonlocal most
        start.wait()
        with module._alone_at_first():
            with lock:
                inside.append(number)
                most = max(most, len(inside))
            time.sleep(0.05)
            with lock:
                inside.remove(number)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(compute, range(threads)))
    return most


def test_threads_compute_together_once_a_batch_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_computed", threading.Event())
    assert together(4) == 1
    assert together(4) > 1


def test_a_first_batch_that_fails_leaves_the_next_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_computed", threading.Event())
    with pytest.raises(ValueError, match="broken"), module._alone_at_first():
        raise ValueError("broken")
    assert together(2) == 1 and module._computed.is_set()
