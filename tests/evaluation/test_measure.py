"""Measuring: rankers take turns, everything is scored once, ratios are of the same documents."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.measure import WARM_UP_QUERIES, Measurement, measure


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


def test_rankers_take_turns_and_score_everything_once(word_data: RankingData) -> None:
    log: list[tuple[str, int]] = []
    rankers = [Counting("teacher", log), Counting("student", log)]
    results = measure(rankers, word_data, "test", rounds=3, latency_queries=2, progress=False)
    split = word_data.splits["test"]
    documents = {query: len(listed) for query, listed in split.candidates.items()}
    assert [name for name, _ in log] == ["teacher", "student"] * (1 + 3 + 2)
    warm_up = sum(list(documents.values())[:WARM_UP_QUERIES])
    assert log[:2] == [("teacher", warm_up), ("student", warm_up)]
    for result in results:
        assert set(result.scores) == set(split.candidates)
        assert sum(result.round_documents) == sum(documents.values())
        assert result.query_documents == list(documents.values())[:2]
        for query, listed in split.candidates.items():
            assert result.scores[query] == [len(word_data.corpus[document].content) for document in listed]


def test_more_rounds_than_queries(word_data: RankingData) -> None:
    (result,) = measure([Counting("only")], word_data, "dev", rounds=100, latency_queries=100, progress=False)
    assert len(result.round_seconds) == len(result.query_seconds) == 8


def test_figures_are_medians_and_percentiles() -> None:
    teacher = Measurement(round_seconds=[2.0, 4.0, 9.0], round_documents=[10, 10, 10])
    student = Measurement(
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
    assert (latency.threads, latency.batch, latency.candidates) == (1, 64, 6.0)
