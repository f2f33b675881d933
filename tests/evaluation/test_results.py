"""Candidates side by side: one thread and cold start are measured where the step asks for them."""

from __future__ import annotations

from pathlib import Path

from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.results import evaluate_candidates
from hfcompress.models.layout import ONNX_FP32, ONNX_INT8
from hfcompress.recipe import EvaluateStep


def test_one_thread_cold_start_and_intervals(repository: Path, word_data: RankingData) -> None:
    candidates = [
        Candidate(name, str(repository), path, "onnxruntime", "fp32")
        for name, path in (("teacher", ONNX_FP32), ("int8", ONNX_INT8))
    ]
    step = EvaluateStep(threads=2, rounds=6, latency_queries=3, single_thread_queries=6, cold_start=True)
    teacher, other = evaluate_candidates(candidates, word_data, step, max_length=32, progress=False)
    assert teacher.run.keys() == word_data.splits["test"].candidates.keys()
    for found in (teacher.artifact, other.artifact):
        assert found.single_thread is not None and found.single_thread.latency.threads == 1
        assert found.single_thread.latency.queries == 6 and found.latency.queries == 3
        assert found.latency.threads == 2 and found.latency.p99_ms is not None
        assert found.cold_start is not None and found.cold_start.seconds > 0
    assert teacher.artifact.speedup_interval is None
    interval = other.artifact.speedup_interval
    assert interval is not None and interval.low <= other.artifact.speedup <= interval.high
    plain = EvaluateStep(threads=1, rounds=2, latency_queries=1, cold_start=False)
    (alone,) = evaluate_candidates(candidates[1:], word_data, plain, max_length=32, progress=False)
    assert (alone.artifact.single_thread, alone.artifact.cold_start, alone.artifact.speedup_interval) == (None,) * 3
