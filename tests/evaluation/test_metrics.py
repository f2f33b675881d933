"""Metrics: values by hand, the tie rule against an own computation, refusals, and published BM25 baselines."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfcompress.errors import DataError
from hfcompress.evaluation.metrics import (
    agreement,
    first_stage_run,
    means,
    per_query,
    ranking,
    run_from_scores,
    tied_share,
    without_relevant,
)

SHARED_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"

DOCUMENTS = [f"d{number:02d}" for number in range(14)]
# Few distinct values, so that ties are common; some differ only past single precision, which trec_eval cannot see.
SCORES = st.sampled_from([-1.0, 0.0, 0.5, 0.5 + 1e-12, 2.0])


def by_hand(grades: dict[str, int], order: list[str], relevant_from: int) -> dict[str, float]:
    """The metrics from their definitions, for an order that is already decided."""
    gains = [grades.get(document, 0) for document in order]
    ideal = sorted(grades.values(), reverse=True)
    relevant = {document for document, grade in grades.items() if grade >= relevant_from}
    hits = [rank for rank, document in enumerate(order, start=1) if document in relevant]
    discounted = [sum(gain / math.log2(rank + 1) for rank, gain in enumerate(part[:10], 1)) for part in (gains, ideal)]
    values = {"ndcg@10": discounted[0] / discounted[1]}
    if relevant:
        values["mrr@10"] = 1 / hits[0] if hits and hits[0] <= 10 else 0.0
        values["map"] = sum(found / rank for found, rank in enumerate(hits, start=1)) / len(relevant)
        values["recall@10"] = sum(rank <= 10 for rank in hits) / len(relevant)
    return values


def test_values_by_hand() -> None:
    qrels = {"q": {"a": 2, "b": 0, "c": 1}}
    values = per_query(qrels, {"q": {"b": 3.0, "a": 2.0, "x": 1.0, "c": 0.0}})["q"]
    gain, ideal = 2 / math.log2(3) + 1 / math.log2(5), 2 / math.log2(2) + 1 / math.log2(3)
    assert values == pytest.approx({"ndcg@10": gain / ideal, "mrr@10": 0.5, "map": (1 / 2 + 2 / 4) / 2, "recall@10": 1})


def test_only_grades_from_the_threshold_count_in_binary_metrics() -> None:
    qrels = {"q": {"a": 1, "b": 2}}
    values = per_query(qrels, {"q": {"a": 2.0, "b": 1.0}}, relevant_from=2)["q"]
    assert (values["mrr@10"], values["map"], values["recall@10"]) == (0.5, 0.5, 1.0)
    assert values["ndcg@10"] < 1


@pytest.mark.parametrize(("rank", "expected"), [(1, 1.0), (10, 0.1), (11, 0.0)])
def test_reciprocal_rank_is_cut_at_ten(rank: int, expected: float) -> None:
    candidates = {"q": [f"x{number}" for number in range(1, 12)]}
    values = per_query({"q": {f"x{rank}": 1}}, first_stage_run(candidates))
    assert values["q"]["mrr@10"] == pytest.approx(expected)


@settings(deadline=None)
@given(
    scores=st.dictionaries(st.sampled_from(DOCUMENTS), SCORES, min_size=1),
    grades=st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(0, 3), min_size=1),
    relevant_from=st.integers(1, 3),
)
def test_every_metric_follows_the_tie_rule(
    scores: dict[str, float], grades: dict[str, int], relevant_from: int
) -> None:
    if not any(grades.values()):
        grades = {**grades, DOCUMENTS[0]: 1}
    values = per_query({"q": grades}, {"q": scores}, relevant_from)["q"]
    assert values == pytest.approx(by_hand(grades, ranking(scores), relevant_from))


def test_equal_scores_are_ordered_by_descending_id() -> None:
    assert ranking({"a": 1.0, "c": 1.0, "b": 1.0 + 1e-12, "z": 0.0}) == ["c", "b", "a", "z"]
    assert per_query({"q": {"a": 1}}, {"q": {"a": 1.0, "b": 1.0}})["q"]["mrr@10"] == 0.5


def test_a_missing_query_scores_zero_and_an_unjudged_one_does_not_count() -> None:
    values = per_query({"p": {"a": 1}, "q": {"a": 1}}, {"q": {"a": 1.0}, "unjudged": {"a": 1.0}})
    assert list(values) == ["p", "q"]
    assert set(values["p"].values()) == {0.0}
    assert means(values)["ndcg@10"] == 0.5


def test_queries_without_a_relevant_document_are_left_out_and_listed() -> None:
    qrels = {"none": {"a": 0}, "weak": {"a": 1}, "good": {"a": 2}}
    run = {query: {"a": 1.0} for query in qrels}
    values = per_query(qrels, run, relevant_from=2)
    assert list(values["weak"]) == ["ndcg@10"]
    assert "none" not in values
    assert without_relevant(qrels) == ["none"]
    assert without_relevant(qrels, relevant_from=2) == ["none", "weak"]
    assert means(values) == {"ndcg@10": 1.0, "mrr@10": 1.0, "map": 1.0, "recall@10": 1.0}


@pytest.mark.parametrize(
    ("qrels", "run", "relevant_from"),
    [
        ({}, {}, 1),
        ({"q": {"a": 0}}, {"q": {"a": 1.0}}, 1),
        ({"q": {"a": 1}}, {"q": {"a": 1.0}}, 0),
        ({"q": {"a": 1}}, {"q": {"a": math.nan}}, 1),
    ],
)
def test_what_cannot_be_measured_is_refused(qrels: dict, run: dict, relevant_from: int) -> None:
    with pytest.raises(DataError, match="Expected"):
        per_query(qrels, run, relevant_from)


def test_scores_are_joined_in_order() -> None:
    assert run_from_scores({"q": ["b", "a"], "empty": []}, {"q": np.array([1.5, -2.0]), "empty": []}) == {
        "q": {"b": 1.5, "a": -2.0},
        "empty": {},
    }


@pytest.mark.parametrize(
    ("candidates", "scores"),
    [
        ({"q": ["a"]}, {}),
        ({"q": ["a"]}, {"q": [1.0], "p": [1.0]}),
        ({"q": ["a", "b"]}, {"q": [1.0]}),
        ({"q": ["a", "a"]}, {"q": [1.0, 2.0]}),
        ({"q": ["a"]}, {"q": [math.nan]}),
        ({"q": ["a"]}, {"q": [-math.inf]}),
        ({"q": ["a"]}, {"q": [1e39]}),  # infinite in single precision
    ],
)
def test_scores_that_do_not_fit_are_refused(candidates: dict, scores: dict) -> None:
    with pytest.raises(DataError):
        run_from_scores(candidates, scores)


def test_first_stage_run_keeps_the_order_given() -> None:
    run = first_stage_run({"q": ["b", "a", "c"]})
    assert run == {"q": {"b": -1.0, "a": -2.0, "c": -3.0}}
    assert ranking(run["q"]) == ["b", "a", "c"]


def test_agreement_by_hand() -> None:
    teacher = {"q": {"a": 3.0, "b": 2.0, "c": 1.0}}
    # Of three pairs two keep their order and one is reversed.
    assert agreement(teacher, {"q": {"a": 5.0, "b": 0.0, "c": 1.0}}) == pytest.approx(
        {"kendall_tau": 1 / 3, "overlap@10": 1.0}
    )
    documents = [f"d{number:02d}" for number in range(20)]
    forward = {"q": {document: float(rank) for rank, document in enumerate(documents)}}
    backward = {"q": {document: -score for document, score in forward["q"].items()}}
    assert agreement(forward, backward) == pytest.approx({"kendall_tau": -1.0, "overlap@10": 0.0})


def test_agreement_of_lists_without_an_order() -> None:
    flat, sloped, single = {"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 1.0}, {"a": 1.0}
    assert agreement({"q": flat}, {"q": flat})["kendall_tau"] == 1.0
    assert agreement({"q": flat}, {"q": sloped})["kendall_tau"] == 0.0
    assert agreement({"q": single}, {"q": single}) == {"kendall_tau": 1.0, "overlap@10": 1.0}
    # The single candidate of `q` has no order, so `p` alone decides.
    assert agreement({"q": single, "p": flat}, {"q": single, "p": sloped})["kendall_tau"] == 0.0


@given(scores=st.dictionaries(st.sampled_from(DOCUMENTS), SCORES, min_size=1))
def test_a_ranker_agrees_with_itself(scores: dict[str, float]) -> None:
    assert agreement({"q": scores}, {"q": scores}) == pytest.approx({"kendall_tau": 1.0, "overlap@10": 1.0})


@pytest.mark.parametrize(
    "student",
    [{}, {"p": {"a": 1.0}}, {"q": {"a": 1.0, "b": 1.0}}, {"q": {}}, {"q": {"a": math.inf}}],
)
def test_agreement_refuses_other_candidates(student: dict) -> None:
    with pytest.raises(DataError):
        agreement({"q": {"a": 1.0}}, student)


def test_tied_share_counts_neighbours() -> None:
    assert tied_share({"q": {"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.0}, "p": {"a": 2.0, "b": 1.0}}) == 2 / 4
    assert tied_share({"q": {"a": 1.0, "b": 1.0 + 1e-12}}) == 1.0
    assert tied_share({"q": {"a": 1.0}, "p": {}}) == 0.0


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.parametrize(
    ("name", "qrels_file", "relevant_from", "ndcg", "mrr"),
    [
        ("trecdl", "test.tsv", 2, 0.507, 0.702),
        ("trecdl", "test.full.tsv", 2, 0.506, None),
        ("scifact", "test.tsv", 1, 0.679, 0.643),
    ],
)
def test_published_bm25_baselines(
    name: str, qrels_file: str, relevant_from: int, ndcg: float, mrr: float | None
) -> None:
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"the data set {name} is not beside the repository")
    qrels: dict[str, dict[str, int]] = {}
    for row in read_rows(folder / "qrels" / qrels_file):
        qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    candidates: dict[str, list[str]] = {}
    for row in sorted(read_rows(folder / "bm25" / "test.tsv"), key=lambda row: int(row["rank"])):
        candidates.setdefault(row["query-id"], []).append(row["corpus-id"])
    quality = means(per_query(qrels, first_stage_run(candidates), relevant_from))
    assert quality["ndcg@10"] == pytest.approx(ndcg, abs=5e-4)
    if mrr is not None:
        assert quality["mrr@10"] == pytest.approx(mrr, abs=5e-4)
