"""Cold start: a process of its own that holds nothing but what the runtime needs."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hfcompress.evaluation import cold_start, first_query
from hfcompress.evaluation.cold_start import measure_cold_start
from hfcompress.layout import ONNX_INT8, OPENVINO_INT8
from hfcompress.quantization.openvino import is_available
from hfcompress.rankers.base import RankerOptions
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
    here = first_query.peak_memory()
    if here is not None:  # this process has torch in it, and the other one must not inherit its maximum
        assert found.peak_memory_bytes is not None and 1e7 < found.peak_memory_bytes < here


@pytest.mark.parametrize(("runtime", "path"), [("torch", "model.safetensors"), *GRAPHS])
def test_it_scores_as_the_ranker_does(
    repository: Path, runtime: Runtime, path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ranker = load_ranker(repository, runtime, None if runtime == "torch" else path, options=RankerOptions(threads=1))
    asked: list[str] = []

    def run(command: list[str], *, input: str, **settings: object) -> subprocess.CompletedProcess[str]:
        asked.append(input)  # in this process, which is quicker
        monkeypatch.setattr(sys, "stdin", io.StringIO(input))
        first_query.main()
        return subprocess.CompletedProcess(command, 0, capsys.readouterr().out, "")

    monkeypatch.setattr(cold_start.subprocess, "run", run)
    assert measure_cold_start(ranker, str(repository), runtime, path, PAIRS) is not None
    monkeypatch.setattr(sys, "stdin", io.StringIO(asked[0]))
    first_query.main()
    scores = json.loads(capsys.readouterr().out)["scores"]
    exact = ranker.score(PAIRS)
    # Batches differ, and with them the ranges of dynamic int8.
    np.testing.assert_allclose(scores, exact, atol=1e-5 if runtime == "torch" else 0.5 * float(np.std(exact)))


def test_a_start_that_fails_is_told_and_left_out(repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    ranker = load_ranker(repository, "onnxruntime", options=RankerOptions(threads=1))
    with caplog.at_level(logging.WARNING):
        assert measure_cold_start(ranker, str(repository), "onnxruntime", "onnx/missing.onnx", PAIRS) is None
    assert "onnx/missing.onnx in onnxruntime was not measured" in caplog.text
