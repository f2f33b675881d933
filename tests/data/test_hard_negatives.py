"""Hard negatives: what is kept, what is too close, and scores that are not made twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hfcompress.data.beir import load_beir
from hfcompress.data.hard_negatives import mine_hard_negatives
from hfcompress.data.lists import training_lists
from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError, OutputError
from hfcompress.recipe import DataStep


class Overlap:
    """Scores a pair by the number of words of the query in the document; counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        self.asked += len(pairs)
        return np.array([len(set(query.split()) & set(document.split())) for query, document in pairs], dtype=float)


def mined(data: RankingData, out: Path, teacher: Any, **changes: Any) -> Any:
    settings = {"name": "overlap", "fingerprint": "1", "depth": 30, "negatives": 3, "margin": 0.0, "progress": False}
    return mine_hard_negatives(data, teacher, out, **{**settings, **changes})


def overlap(data: RankingData, query: str, document: str) -> int:
    return len(set(data.queries[query].split()) & set(data.corpus[document].text.split()))


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_negatives_are_the_best_that_are_far_enough(tmp_path: Path, word_data: RankingData, margin: float) -> None:
    found = mined(word_data, tmp_path / "out", Overlap(), margin=margin)
    read = load_beir(tmp_path / "out")
    assert read.splits["train"].qrels == word_data.splits["train"].qrels
    assert all(read.splits[name].candidates == word_data.splits[name].candidates for name in ("dev", "test"))
    counted = 0
    for query, (relevant, *negatives) in read.splits["train"].candidates.items():
        assert word_data.splits["train"].qrels[query] == {relevant: 1}
        scores = [overlap(word_data, query, document) for document in negatives]
        assert len(scores) <= 3 and scores == sorted(scores, reverse=True)
        assert all(score < overlap(word_data, query, relevant) - margin for score in scores)
        counted += len(scores)
    assert found.queries == 40 and found.kept == counted > 0 and found.too_close > 0
    assert json.loads((tmp_path / "out" / "mine.json").read_text())["kept"] == counted


def test_the_lists_can_be_read_as_rows_and_the_folder_by_a_recipe(tmp_path: Path, word_data: RankingData) -> None:
    mined(word_data, tmp_path / "out", Overlap())
    rows = [json.loads(line) for line in (tmp_path / "out" / "lists" / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 40 and set(rows[0]) == {"query", "docs", "labels", "scores"}
    assert all(row["labels"][0] == 1 and sum(row["labels"]) == 1 for row in rows)
    read = load_data(DataStep(sets=[str(tmp_path / "out" / "lists" / "train.jsonl")]), progress=False)
    assert read.pool and len(read.queries) == 40
    lists = training_lists(load_data(DataStep(sets=[str(tmp_path / "out")]), progress=False), 4, 0, 0)
    negatives = {row["query"]: set(row["docs"][1:]) for row in rows}
    full = [row for row in lists if len(negatives[row["query"]]) == 3]
    assert full and all(set(row["documents"][1:]) == negatives[row["query"]] for row in full)


def test_scores_are_kept(tmp_path: Path, word_data: RankingData) -> None:
    first, second = Overlap(), Overlap()
    scored = mined(word_data, tmp_path / "out", first).scored
    again = mined(word_data, tmp_path / "out", second, margin=2.0)
    assert (first.asked, second.asked) == (scored, 0) and again.scored == scored
    assert json.loads((tmp_path / "out" / "mine.json").read_text())["margin"] == 2.0


def test_an_interruption_loses_little(tmp_path: Path, word_data: RankingData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfcompress.data.lists.LISTS_PER_CHUNK", 10)

    class Stops(Overlap):
        def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
            if self.asked:
                raise KeyboardInterrupt
            return super().score(pairs)

    stopped, after, whole = Stops(), Overlap(), Overlap()
    with pytest.raises(KeyboardInterrupt):
        mined(word_data, tmp_path / "out", stopped)
    assert not (tmp_path / "out" / "corpus.jsonl").exists()
    mined(word_data, tmp_path / "out", after)
    mined(word_data, tmp_path / "whole", whole)
    assert stopped.asked > 0 and stopped.asked + after.asked == whole.asked
    assert load_beir(tmp_path / "out").fingerprint() == load_beir(tmp_path / "whole").fingerprint()


def test_what_cannot_be_mined(tmp_path: Path, word_data: RankingData) -> None:
    teacher = Overlap()
    with pytest.raises(DataError, match="pool set"):
        mined(replace(word_data, pool=True), tmp_path / "out", teacher)
    with pytest.raises(DataError, match="no 'train' split"):
        mined(replace(word_data, splits={"test": word_data.splits["test"]}), tmp_path / "out", teacher)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(OutputError, match=r"thesis\.txt"):
        mined(word_data, tmp_path / "thesis", teacher)
    assert teacher.asked == 0
