"""Metrics against the libraries themselves, pytrec_eval, ir-measures, scipy and scikit-learn, on runs with ties."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, mannwhitneyu

from hfcompress.errors import DataError
from hfcompress.evaluation.metric_definitions import metric_definition
from hfcompress.evaluation.metrics import agreement, per_query, run_from_scores

EXACT = 1e-9
CUTOFFS = (1, 3, 5, 10, 20)
THEIRS = {"ndcg": "ndcg_cut.{}", "recall": "recall.{}", "p": "P.{}", "hit": "success.{}"}

Runs = tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]


@st.composite
def runs(draw: st.DrawFn, ties: bool = True) -> Runs:
    """Judgements, and a run that ranks some judged documents and others; scores of few values, so that many tie."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = draw(st.integers(2, 12)) if ties else 10_000
    qrels: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for number in range(draw(st.integers(1, 4))):
        documents = [f"d{place}" for place in rng.permutation(40)]
        judged = documents[: rng.integers(1, 30)]
        qrels[f"q{number}"] = {document: int(rng.integers(0, 4)) for document in judged} | {judged[0]: 3}
        ranked = rng.permutation(documents)[: rng.integers(1, 40)]
        scores = rng.permutation(values)[: len(ranked)] if not ties else rng.integers(0, values, len(ranked))
        run[f"q{number}"] = {str(document): float(score) / 8 for document, score in zip(ranked, scores, strict=True)}
    return qrels, run


def ours(found: Runs, names: list[str], relevant_from: int = 1) -> dict[str, dict[str, float]]:
    return per_query(*found, relevant_from, names)


@settings(deadline=None, max_examples=60)
@given(found=runs(), cutoff=st.sampled_from(CUTOFFS), level=st.integers(1, 3))
def test_values_are_those_of_pytrec_eval(found: Runs, cutoff: int, level: int) -> None:
    qrels, run = found
    values = ours(found, [f"{kind}@{cutoff}" for kind in THEIRS] + ["map", "mrr@1000"], level)
    for kind, name in THEIRS.items():
        evaluator = pytrec_eval.RelevanceEvaluator(qrels, {name.format(cutoff)}, relevance_level=level)
        for query, theirs in evaluator.evaluate(run).items():
            # Graded gains do not look at the level from which binary metrics count.
            assert values[query][f"{kind}@{cutoff}"] == pytest.approx(next(iter(theirs.values())), abs=EXACT)
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"map", "recip_rank"}, relevance_level=level)
    for query, theirs in evaluator.evaluate(run).items():
        assert values[query]["map"] == pytest.approx(theirs["map"], abs=EXACT)
        assert values[query]["mrr@1000"] == pytest.approx(theirs["recip_rank"], abs=EXACT)


@settings(deadline=None, max_examples=40)
@given(found=runs(), cutoff=st.sampled_from(CUTOFFS), level=st.integers(1, 3))
def test_values_are_those_of_ir_measures(found: Runs, cutoff: int, level: int) -> None:
    ir = pytest.importorskip("ir_measures")
    pairs = {
        f"ndcg@{cutoff}": ir.nDCG @ cutoff,
        f"p@{cutoff}": ir.P(rel=level) @ cutoff,
        f"recall@{cutoff}": ir.R(rel=level) @ cutoff,
        f"hit@{cutoff}": ir.Success(rel=level) @ cutoff,
        "map": ir.AP(rel=level),
        "mrr@1000": ir.RR(rel=level),
    }
    values = ours(found, list(pairs), level)
    names = {str(measure): name for name, measure in pairs.items()}
    for metric in ir.iter_calc(list(pairs.values()), *found):
        assert values[metric.query_id][names[str(metric.measure)]] == pytest.approx(metric.value, abs=EXACT)


@settings(deadline=None, max_examples=40)
@given(found=runs(ties=False), cutoff=st.sampled_from(CUTOFFS))
def test_judged_is_that_of_ir_measures_without_ties(found: Runs, cutoff: int) -> None:
    # Between equal scores ir-measures orders here by ascending id, trec_eval and we by descending id.
    ir = pytest.importorskip("ir_measures")
    values = ours(found, [f"judged@{cutoff}"])
    for metric in ir.iter_calc([ir.Judged @ cutoff], *found):
        assert values[metric.query_id][f"judged@{cutoff}"] == pytest.approx(metric.value, abs=EXACT)


@settings(deadline=None, max_examples=60)
@given(found=runs(), level=st.integers(1, 3))
def test_auc_is_that_of_scipy_and_scikit_learn(found: Runs, level: int) -> None:
    learn = pytest.importorskip("sklearn.metrics")
    qrels, run = found
    values = ours(found, ["auc"], level)
    for query, scores in run.items():
        positive = [score for document, score in scores.items() if qrels[query].get(document, 0) >= level]
        others = [score for document, score in scores.items() if qrels[query].get(document, 0) < level]
        if not positive or not others:
            assert "auc" not in values[query]
            continue
        u = mannwhitneyu(positive, others).statistic
        assert values[query]["auc"] == pytest.approx(u / (len(positive) * len(others)), abs=EXACT)
        labels = [1] * len(positive) + [0] * len(others)
        assert values[query]["auc"] == pytest.approx(learn.roc_auc_score(labels, positive + others), abs=EXACT)


@settings(deadline=None, max_examples=40)
@given(found=runs(), seed=st.integers(0, 2**32 - 1))
def test_agreement_is_that_of_scipy(found: Runs, seed: int) -> None:
    run = found[1]
    rng = np.random.default_rng(seed)
    other = {query: {document: float(rng.integers(0, 6)) for document in scores} for query, scores in run.items()}
    taus = []
    for query, scores in run.items():
        tau = kendalltau(list(scores.values()), list(other[query].values())).statistic
        constant = [len(set(each.values())) == 1 for each in (scores, other[query])]
        if len(scores) > 1:
            taus.append(float(all(constant)) if any(constant) else tau)
    assert agreement(run, other)["kendall_tau"] == pytest.approx(np.mean(taus) if taus else 1, abs=EXACT)


def test_values_by_hand() -> None:
    qrels = {"q": {"a": 1, "b": 0, "c": 1, "e": 1}}
    run = {"q": {"x": 4.0, "a": 3.0, "b": 3.0, "c": 1.0}}  # x, then b before a (equal scores), then c
    values = ours((qrels, run), ["p@2", "p@10", "hit@2", "hit@3", "judged@2", "judged@10", "recall@3", "mrr@2", "auc"])
    assert values["q"] == pytest.approx(
        {
            "p@2": 0, "p@10": 0.2, "hit@2": 0, "hit@3": 1, "judged@2": 0.5, "judged@10": 0.75, "recall@3": 1 / 3,
            "mrr@2": 0, "auc": (0 + 0.5 + 0 + 0) / 4,
        }
    )  # fmt: skip


def test_undefined_values_are_left_out_and_missing_queries_score_zero() -> None:
    qrels = {"weak": {"a": 1}, "all": {"a": 2, "b": 2}, "gone": {"a": 2}}
    run = {"weak": {"a": 1.0, "b": 0.0}, "all": {"a": 1.0, "b": 0.0}}
    values = per_query(qrels, run, 2, ["ndcg@5", "judged@5", "auc", "hit@5"])
    assert values["weak"] == {"ndcg@5": 1, "judged@5": 0.5}
    assert values["all"] == {"ndcg@5": 1, "judged@5": 1, "hit@5": 1}
    assert values["gone"] == {"ndcg@5": 0, "judged@5": 0, "auc": 0, "hit@5": 0}


@pytest.mark.parametrize("kind", [int, np.int8, np.int32, np.int64, np.uint8, np.uint64])
def test_grades_of_any_integer_type(kind: type) -> None:
    run = {"q": {"a": 0.0, "b": 1.0}}
    expected = per_query({"q": {"a": 2, "b": 1}}, run)
    assert per_query({"q": {"a": kind(2), "b": kind(1)}}, run) == expected


@pytest.mark.parametrize("grade", [1.0, "1", None, np.float32(1)])
def test_grades_that_are_no_integers_are_refused(grade: object) -> None:
    with pytest.raises(DataError, match="not an integer"):
        per_query({"q": {"a": grade}}, {"q": {"a": 1.0}})  # type: ignore[dict-item]


def test_runs_of_other_queries_are_refused() -> None:
    with pytest.raises(DataError, match=r"no query in common.*'p'.*'q'"):
        per_query({"q": {"a": 1}}, {"p": {"a": 1.0}})


@pytest.mark.parametrize("name", ["ndcg", "ndcg@0", "ndcg@-1", "ndcg@1.5", "NDCG@10", "map@10", "auc@5", "rbo", ""])
def test_names_that_are_no_metrics(name: str) -> None:
    with pytest.raises(DataError, match="no such metric"):
        metric_definition(name)


def test_documents_twice_are_refused() -> None:
    with pytest.raises(DataError, match="do not match its candidates"):
        run_from_scores({"q": ["a", "a"]}, {"q": [1.0, 2.0]})
