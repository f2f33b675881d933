"""Cold start: a process of its own that holds nothing but what the runtime needs."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hfcompress.evaluation import cold_start, cold_start_worker
from hfcompress.evaluation.cold_start import measure_cold_start
from hfcompress.models.layout import ONNX_INT8, OPENVINO_INT8
from hfcompress.models.load import load_model
from hfcompress.quantization.config import WeightQuantizationConfig
from hfcompress.quantization.openvino import is_available
from hfcompress.quantization.weights import packed_file, save_packed
from hfcompress.rankers.base import BatchedRanker, RankerOptions
from hfcompress.rankers.load import Runtime, load_ranker

PAIRS = [("ba de fi", "sun ba de"), ("ba de fi", "go lu pe pi"), ("ba de fi", "ba")]
GRAPHS: list[tuple[Runtime, str]] = [("onnxruntime", ONNX_INT8)]
if is_available():
    GRAPHS.append(("openvino", OPENVINO_INT8))


@pytest.mark.parametrize(("runtime", "path"), GRAPHS)
def test_a_graph_starts_with_its_runtime_alone(repository: Path, runtime: Runtime, path: str) -> None:
    ranker = load_ranker(repository, runtime, path, options=RankerOptions(threads=1))
    found = measure_cold_start(ranker, str(repository), runtime, path, PAIRS)
    assert found is not None
    assert min(found.import_seconds, found.load_seconds, found.first_query_seconds) > 0
    assert found.seconds == pytest.approx(found.import_seconds + found.load_seconds + found.first_query_seconds)
    here = cold_start_worker.peak_memory()
    if here is not None:  # this process has torch in it, and the other one must not inherit its maximum
        assert found.peak_memory_bytes is not None and 1e7 < found.peak_memory_bytes < here


Ask = Callable[[BatchedRanker, Path, Runtime, str | None], list[float]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """The scores that the other process would give, computed in this one, which is quicker."""

    def scores(ranker: BatchedRanker, folder: Path, runtime: Runtime, file: str | None) -> list[float]:
        printed: list[str] = []

        def run(command: list[str], *, input: str, **settings: object) -> subprocess.CompletedProcess[str]:
            monkeypatch.setattr(sys, "stdin", io.StringIO(input))
            cold_start_worker.main()
            printed.append(capsys.readouterr().out)
            return subprocess.CompletedProcess(command, 0, printed[0], "")

        monkeypatch.setattr(cold_start.subprocess, "run", run)
        assert measure_cold_start(ranker, str(folder), runtime, file, PAIRS) is not None
        return json.loads(printed[0].splitlines()[-1])["scores"]

    return scores


@pytest.mark.parametrize(("runtime", "path"), GRAPHS)
def test_a_graph_scores_as_the_ranker_does(repository: Path, runtime: Runtime, path: str, ask: Ask) -> None:
    ranker = load_ranker(repository, runtime, path, options=RankerOptions(threads=1))
    exact = ranker.score(PAIRS)
    # Batches differ, and with them the ranges of dynamic int8.
    np.testing.assert_allclose(ask(ranker, repository, runtime, path), exact, atol=0.5 * float(np.std(exact)))


def test_weights_and_packed_weights_score_as_the_ranker_does(cross_encoder: Path, ask: Ask) -> None:
    config = WeightQuantizationConfig(bits=4)
    save_packed(load_model(str(cross_encoder)), config, cross_encoder)
    found = []
    for file in (None, packed_file(config)):
        ranker = load_ranker(cross_encoder, "torch", file, options=RankerOptions(threads=1))
        found.append(ask(ranker, cross_encoder, "torch", file))
        np.testing.assert_allclose(found[-1], ranker.score(PAIRS), atol=1e-5)
    assert max(abs(first - second) for first, second in zip(*found, strict=True)) > 1e-3


def test_a_start_that_fails_is_told_and_left_out(repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    ranker = load_ranker(repository, "onnxruntime", options=RankerOptions(threads=1))
    with caplog.at_level(logging.WARNING):
        assert measure_cold_start(ranker, str(repository), "onnxruntime", "onnx/missing.onnx", PAIRS) is None
    assert "onnx/missing.onnx in onnxruntime was not measured" in caplog.text
