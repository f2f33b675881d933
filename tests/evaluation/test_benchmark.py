"""Benchmarks: rankers take turns, everything is scored once, ratios are of the same documents."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
import pytest

from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.benchmark import (
    TOKENIZER_THREADS,
    WARM_UP_QUERIES,
    BenchmarkResult,
    benchmark,
    benchmark_single_thread,
)


@dataclass
class Counting:
    """A ranker whose score is the length of the document; writes down who was asked and for how many pairs."""

    name: str
    log: list[tuple[str, int]] = field(default_factory=list)
    threads: int = 1
    batch_tokens: int = 64

    def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        self.log.append((self.name, len(pairs)))
        return np.array([len(document) for _, document in pairs], dtype=np.float32)

    def synchronize(self) -> None:
        """The CPU never lags behind."""


def test_rankers_take_turns_and_score_everything_once(word_data: RankingData) -> None:
    log: list[tuple[str, int]] = []
    rankers = [Counting("teacher", log), Counting("student", log)]
    results = benchmark(rankers, word_data, "test", rounds=3, latency_queries=7, progress=False)
    split = word_data.splits["test"]
    documents = {query: len(listed) for query, listed in split.candidates.items()}
    of_each = [documents[query] for query in split.candidates]
    turns = [of_each[:1] + of_each[:5], of_each[5:6] + of_each[5:7]]  # the first of a turn is scored once before
    assert [name for name, _ in log[:8]] == ["teacher", "student"] * (1 + 3)
    assert log[8:] == [(name, size) for turn in turns for name in ("teacher", "student") for size in turn]
    warm_up = sum(list(documents.values())[:WARM_UP_QUERIES])
    assert log[:2] == [("teacher", warm_up), ("student", warm_up)]
    for result in results:
        assert set(result.scores) == set(split.candidates)
        assert sum(result.round_documents) == sum(documents.values())
        assert result.query_documents == of_each[:7]
        for query, listed in split.candidates.items():
            assert result.scores[query] == [len(word_data.corpus[document].content) for document in listed]


def test_more_rounds_than_queries(word_data: RankingData) -> None:
    (result,) = benchmark([Counting("only")], word_data, "dev", rounds=100, latency_queries=100, progress=False)
    assert len(result.round_seconds) == len(result.query_seconds) == 8


def test_a_sample_is_drawn_by_the_ids(word_data: RankingData) -> None:
    log: list[tuple[str, int]] = []
    settings = {"rounds": 2, "latency_queries": 1, "progress": False}
    few, more = (
        benchmark([Counting("only", log)], word_data, "test", most_queries=most, **settings)[0]  # type: ignore[arg-type]
        for most in (4, 6)
    )
    assert len(few.scores) == 4 and set(few.scores) < set(more.scores) < set(word_data.splits["test"].candidates)
    assert few.latency(Counting("only")).bulk_queries == 4  # type: ignore[arg-type]


def test_figures_are_medians_and_percentiles() -> None:
    teacher = BenchmarkResult(round_seconds=[2.0, 4.0, 9.0], round_documents=[10, 10, 10])
    student = BenchmarkResult(
        round_seconds=[1.0, 1.0, 1.0],
        round_documents=[10, 10, 10],
        query_seconds=[0.01, 0.02, 0.03],
        query_documents=[5, 5, 8],
    )
    assert student.speedup_over(teacher) == 4.0
    latency = student.latency(Counting("student"))  # type: ignore[arg-type]
    assert latency.docs_per_second == 10.0
    assert latency.p50_ms == pytest.approx(20.0)
    assert latency.p95_ms == pytest.approx(29.0)
    assert latency.p99_ms == pytest.approx(29.8)
    assert (latency.threads, latency.batch, latency.candidates, latency.queries) == (1, 64, 6.0, 3)


def test_the_interval_of_a_speedup_is_the_sign_tests() -> None:
    student = BenchmarkResult(round_seconds=[1.0] * 12)
    teacher = BenchmarkResult(round_seconds=[float(number) for number in range(1, 13)])
    interval = student.speedup_interval(teacher, 0.95)
    # The third of 12 in order: P(Bin(12, 1/2) <= 2) = 79 / 4096 < 0.025 < P(<= 3), from either end.
    assert interval is not None and (interval.low, interval.high, interval.confidence) == (3.0, 10.0, 0.95)
    few = BenchmarkResult(round_seconds=[1.0] * 5)
    assert few.speedup_interval(BenchmarkResult(round_seconds=[2.0] * 5), 0.95) is None


def test_the_interval_covers_the_true_ratio_under_heavy_tails() -> None:
    random = np.random.default_rng(0)
    ours = random.standard_cauchy((400, 8))
    covered = 0
    for row in ours:
        times = np.exp(np.clip(row, -20, 20)) * 3.0  # the median ratio is 3
        found = BenchmarkResult(round_seconds=[1.0] * 8).speedup_interval(
            BenchmarkResult(round_seconds=times.tolist()), 0.95
        )
        assert found is not None
        covered += found.low <= 3.0 <= found.high
    assert covered / 400 > 0.95  # 0.992 with 8 rounds


def test_one_thread_is_timed_in_turns_on_whole_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, int]] = []
    lists = [[("q", "d" * length)] * length for length in range(2, 9)]
    monkeypatch.setenv(TOKENIZER_THREADS, "true")
    rankers = [Counting("teacher", log), Counting("student", log)]
    teacher, student = benchmark_single_thread(rankers, [lists, lists], 0.95)  # type: ignore[arg-type]
    assert log == [("teacher", 2), ("student", 2)] + [
        (name, len(pairs)) for pairs in lists for name in ("teacher", "student") for _ in range(2)
    ]
    assert teacher.speedup == 1.0 and teacher.speedup_interval is None
    assert student.speedup > 0 and student.speedup_interval is not None
    assert student.latency.queries == 7 and student.latency.candidates == 5.0
    assert os.environ[TOKENIZER_THREADS] == "true"


def test_one_thread_has_a_limit_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfcompress.evaluation.benchmark.SINGLE_THREAD_SECONDS", -1.0)
    monkeypatch.delenv(TOKENIZER_THREADS, raising=False)
    (only,) = benchmark_single_thread([Counting("only")], [[[("q", "d")]] * 5], 0.95)  # type: ignore[list-item]
    assert only.latency.queries == 1
    assert TOKENIZER_THREADS not in os.environ
