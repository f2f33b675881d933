"""Judgements by a ranker's own order."""

from __future__ import annotations

from dataclasses import replace

from hfcompress.data.document import Document
from hfcompress.data.pseudo_labels import unlabelled_splits, with_pseudo_labels
from hfcompress.data.ranking import RankingData, Split
from hfcompress.evaluation.metrics import means, per_query

CORPUS = {f"d{number}": Document("", f"text {number}") for number in range(12)}
CANDIDATES = {"q": list(CORPUS), "r": ["d1", "d0"]}
DATA = RankingData("x", {"q": "query", "r": "other"}, CORPUS, {"test": Split({}, CANDIDATES)})


def test_the_order_becomes_grades() -> None:
    scores = {"q": [0.5, 3.0, *(-float(number) for number in range(10))], "r": [1.0, 1.0]}
    data = with_pseudo_labels(DATA, {"test": scores})
    expected = {"d1": 10, "d0": 9, **{f"d{number}": max(0, 10 - number) for number in range(2, 12)}}
    assert data.splits["test"].qrels == {"q": expected, "r": {"d1": 10, "d0": 9}}
    assert data.relevant_from == 10 and "how far its order is kept" in data.notes[-1]
    run = {query: dict(zip(CANDIDATES[query], values, strict=True)) for query, values in scores.items()}
    assert means(per_query(data.splits["test"].qrels, run, data.relevant_from))["ndcg@10"] == 1.0
    worse = {query: {document: -score for document, score in values.items()} for query, values in run.items()}
    assert means(per_query(data.splits["test"].qrels, worse, data.relevant_from))["ndcg@10"] < 0.9


def test_only_data_without_a_label_in_dev_and_test_is_unjudged() -> None:
    assert unlabelled_splits(DATA) == ["test"]
    dev = Split({"r": {"d1": 1}}, {"r": ["d1"]})
    assert unlabelled_splits(replace(DATA, splits={**DATA.splits, "dev": dev})) == []
    assert unlabelled_splits(replace(DATA, splits={"train": DATA.splits["test"]})) == []
