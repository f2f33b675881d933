"""Candidates side by side: one thread and cold start are measured where the step asks for them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.results import evaluate_candidates
from hfcompress.evaluation.score_store import scores_folder
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


def test_quality_is_of_all_queries_and_speed_of_a_sample(repository: Path, word_data: RankingData) -> None:
    """Quality is what it was when the benchmark scored all queries, for dynamic int8 too, and known the next time."""
    candidates = [
        Candidate.teacher(str(repository), "teacher"),
        Candidate("int8", str(repository), ONNX_INT8, "onnxruntime", "int8-dynamic", "teacher"),
    ]
    step = EvaluateStep(threads=1, rounds=2, latency_queries=1, cold_start=False)
    pairs = [set(word_data.pairs(*listed)) for listed in word_data.splits["test"].candidates.items()]
    whole, sampled, again = (
        evaluate_candidates(
            candidates, word_data, step.model_copy(update={"speed_queries": queries}), max_length=32, progress=False
        )
        for queries in (12, 4, 4)
    )
    for one, other in zip(whole, sampled, strict=True):
        assert one.artifact.per_query == pytest.approx(other.artifact.per_query, abs=1e-4)
        assert one.artifact.per_query.keys() == word_data.splits["test"].qrels.keys()
        for query, found in one.run.items():
            assert found == pytest.approx(other.run[query], abs=1e-4)
        assert one.artifact.latency.bulk_queries == 12 and other.artifact.latency.bulk_queries == 4
    (file,) = scores_folder().glob("*.sqlite")
    with closing(sqlite3.connect(file)) as connection:  # of the teacher, each pair once
        assert connection.execute("SELECT COUNT(*) FROM scores").fetchone() == (sum(map(len, pairs)),)
    delta, former = sampled[1].artifact.delta, whole[1].artifact.delta
    assert delta is not None and former is not None and delta.mean == pytest.approx(former.mean, abs=1e-4)
    assert again[0].run == sampled[0].run
