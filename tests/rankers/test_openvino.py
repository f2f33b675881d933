"""OpenVINO in a process: the first batches are computed by one thread, and signals are handled afterwards."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hfcompress.quantization.openvino import is_available
from hfcompress.rankers import openvino as module
from hfcompress.rankers.load import load_ranker
from hfcompress.utils.openvino_core import openvino_core


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


# Quantizes with NNCF and opens graphs several times, and receives a signal when all of that is gone. OpenVINO changes
# how signals are handled on CPUs with AMX only.
SIGNALLED = """
import gc, os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from conftest import make_pico
from transformers import AutoTokenizer
from hfcompress.quantization.artifacts import write_graphs
from hfcompress.quantization.config import OpenVINOQuantizationConfig
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import load_ranker

tokenizer = AutoTokenizer.from_pretrained({folder!r})
pairs = [("ba be", "bo ba be")] * 4
write_graphs(Path({out!r}), make_pico(), tokenizer, [OpenVINOQuantizationConfig()], pairs=pairs, progress=False)
for _ in range(2):
    ranker = load_ranker({folder!r}, "openvino", options=RankerOptions(1))
    ranker.score(pairs)
del ranker
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.skipif(not is_available(), reason="the openvino extra is not installed")
def test_signals_are_handled_when_rankers_are_gone(repository: Path, tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    source = SIGNALLED.format(path=[tests], folder=str(repository), out=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and done.stdout.splitlines()[-1:] == ["handled"], done.stderr


@pytest.mark.skipif(not is_available(), reason="the openvino extra is not installed")
def test_rankers_share_the_core_of_the_process(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino_core()
    monkeypatch.setattr("openvino.Core", None)
    for _ in range(2):
        assert load_ranker(repository, "openvino").rank("ba", ["be", "ba"])
