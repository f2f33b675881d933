"""Pairs of a run's data that int8 is measured with."""

from __future__ import annotations

import pytest

from hfcompress.data.ranking import RankingData
from hfcompress.steps import inputs as run_data
from hfcompress.steps.inputs import calibration_pairs, ranking_pairs


def test_calibration_reads_no_more_pairs_than_it_takes(word_data: RankingData, monkeypatch: pytest.MonkeyPatch) -> None:
    train = word_data.splits["train"].candidates
    expected = [
        word_data.pairs(query, [documents[number % len(documents)]])[0]
        for number, (query, documents) in enumerate(train.items())
    ]
    asked: list[str] = []
    pairs = RankingData.pairs

    def counted(data: RankingData, query: str, documents: list[str]) -> list[tuple[str, str]]:
        asked.append(query)
        return pairs(data, query, documents)

    monkeypatch.setattr(RankingData, "pairs", counted)
    assert calibration_pairs(word_data, 5) == expected[:5] and len(asked) == 5
    assert calibration_pairs(word_data, 1_000) == expected


def test_mixed_precision_is_chosen_on_lists(word_data: RankingData) -> None:
    pairs = ranking_pairs(word_data)
    by_query = {query: [document for other, document in pairs if other == query] for query, _ in pairs}
    assert len(by_query) == run_data.RANKING_QUERIES
    assert all(1 < len(documents) <= run_data.RANKING_DOCUMENTS for documents in by_query.values())
    queries = {word_data.queries[key] for key in word_data.splits["train"].candidates}
    assert set(by_query) <= queries
