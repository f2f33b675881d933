"""ONNX Runtime on the CPU: each thread computes its own batches."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from conftest import WORDS

from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import load_ranker
from hfcompress.rankers.onnxruntime import OnnxRuntimeRanker

PAIRS = [(" ".join(WORDS[n : n + 3]), " ".join(WORDS[2 * n : 2 * n + 1 + n % 9])) for n in range(25)]


class CountingSession:
    """A session that counts its concurrent runs, which last at least 20 ms."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session, self.lock = session, threading.Lock()
        self.busy = self.most = 0

    def run(self, *arguments: object) -> list[np.ndarray]:
        with self.lock:
            self.busy += 1
            self.most = max(self.most, self.busy)
        time.sleep(0.02)
        try:
            return self.session.run(*arguments)
        finally:
            with self.lock:
                self.busy -= 1


@pytest.mark.parametrize("threads", [1, 3])
def test_each_thread_computes_its_own_batches(threads: int, repository: Path) -> None:
    ranker = load_ranker(repository, file="onnx/model.onnx", options=RankerOptions(threads, 96))
    assert isinstance(ranker, OnnxRuntimeRanker)
    ranker.session = session = CountingSession(ranker.session)
    pairs = [(query, document) for query, _ in PAIRS for _, document in PAIRS[:4]]
    np.testing.assert_allclose(ranker.score(pairs), load_ranker(repository, "torch").score(pairs), atol=1e-4)
    assert session.most == threads
    assert ranker.score([]).shape == (0,) and ranker.score(pairs[:1]).shape == (1,)
