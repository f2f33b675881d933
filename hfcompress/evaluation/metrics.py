"""Ranking metrics per query by pytrec_eval (trec_eval's code), and agreement between two rankings.

This module uses the tie rule of trec_eval everywhere: documents are sorted by score in single precision, and documents
with equal scores by id in descending order. The order of the documents in a run is ignored. `tied_share` is the share
of neighbours that the rule had to order.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr

from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError
from hfcompress.evaluation.metric_definitions import compute_metrics, metric_definition
from hfcompress.rankers.base import Ranker

Run = Mapping[str, Mapping[str, float]]
"""Scores of a ranker, `{query id: {document id: score}}`; a higher score means more relevant."""

Qrels = Mapping[str, Mapping[str, int]]
"""Relevance grades, `{query id: {document id: grade}}`."""

CUTOFF = 10
PRIMARY_METRIC = "ndcg@10"  # of the verdict
METRICS = ("ndcg@10", "mrr@10", "map", "recall@10")  # default of `per_query`; higher is better
REPORTED = (*METRICS, "p@10", "judged@10")  # in every report


def run_from_scores(candidates: Mapping[str, list[str]], scores: Mapping[str, Sequence[float]]) -> Run:
    """Make a run of the candidates of every query and their scores.

    Args:
        candidates: Documents of each query, `{query id: [document id]}`.
        scores: One score for each candidate, in the same order, `{query id: [score]}`.

    Raises:
        DataError: A query has no scores or too many, a document occurs twice, or a score is not finite.
    """
    if candidates.keys() != scores.keys():
        raise DataError(
            "The queries with scores are not the queries with candidates",
            value=sorted(candidates.keys() ^ scores.keys())[:5],
            expected="scores for exactly the queries that have candidates",
            remedy="score every query once, with the candidates given",
        )
    run: dict[str, dict[str, float]] = {}
    for query, documents in candidates.items():
        values = [float(score) for score in scores[query]]
        if len(values) != len(documents) or len(set(documents)) != len(documents):
            raise DataError(
                f"The scores of query {query!r} do not match its candidates",
                value=f"{len(values)} scores, {len(documents)} candidates, {len(set(documents))} of them distinct",
                expected="one score for each candidate, and each candidate once",
                remedy="remove repeated candidates and score them all",
            )
        run[query] = dict(zip(documents, values, strict=True))
    _check_finite(run)
    return run


def first_stage_run(candidates: Mapping[str, list[str]]) -> Run:
    """The first-stage ranking as a run: the score of each document is its negative rank, from -1 down."""
    return {
        query: {document: -float(rank) for rank, document in enumerate(documents, start=1)}
        for query, documents in candidates.items()
    }


def ranking(scores: Mapping[str, float]) -> list[str]:
    """Sort the documents of one query by the tie rule of this module, best first."""
    # trec_eval stores scores as C floats, so doubles that differ by less are ties in every metric.
    return sorted(scores, key=lambda document: (np.float32(scores[document]), document), reverse=True)


def without_relevant(qrels: Qrels, relevant_from: int = 1) -> list[str]:
    """Ids of the queries that have no document with a grade of `relevant_from` or more.

    `per_query` leaves them out, since all rankings of their documents are equally good. A report counts them.
    """
    return [query for query, grades in qrels.items() if not any(grade >= relevant_from for grade in grades.values())]


def per_query(
    qrels: Qrels, run: Run, relevant_from: int = 1, names: Sequence[str] = METRICS
) -> dict[str, dict[str, float]]:
    """Compute metrics of every judged query.

    - `ndcg@K`: trec_eval's `ndcg_cut_K`. The gain of a document is its grade, the discount is log2(rank + 1), and the
      ideal ranking has all judged documents, candidates or not (Jarvelin and Kekalainen, 2002, with the discount of
      Burges et al., 2005).
    - `mrr@K`: reciprocal rank of the first relevant document, 0 if it is not among the first K.
    - `map`: mean precision at the ranks of the relevant documents, over the whole ranking.
    - `recall@K`: share of the relevant documents among the first K.
    - `p@K`: share of relevant documents among the first K; a shorter ranking is filled up with non-relevant ones.
    - `hit@K`: 1 if a relevant document is among the first K, else 0.
    - `judged@K`: share of judged documents among the first K, or among all of a shorter ranking.
    - `auc`: for recommendation: share of the pairs of a relevant and another document of the ranking in which the
      relevant one has the higher score. Equal scores count one half (Mann and Whitney, 1947), without the tie rule of
      this module. Left out if a ranking has no such pair.

    All but `ndcg@K` and `judged@K` are binary: a document is relevant from grade `relevant_from` on. Documents without
    a judgement are not relevant. A judged query that the run lacks scores 0. Queries of the run without judgements are
    ignored.

    Args:
        qrels: Relevance grades, integers of 0 or more, of Python or numpy.
        run: Scores of the ranker.
        relevant_from: Lowest grade that is relevant in the binary metrics, 1 or more.
        names: The metrics.

    Returns:
        `{query id: {metric: value in [0, 1]}}`, in the order of the qrels. Queries without any relevant document are
        left out (see `without_relevant`). A query with grades of 1 or more, but none of `relevant_from` or more, has
        `ndcg@K` and `judged@K` only.

    Raises:
        DataError: No query has a relevant document, a grade is no integer, the run and the qrels have no query in
            common, `relevant_from` is below 1, a score is not finite, or there is no such metric.
    """
    metrics = [metric_definition(name) for name in names]
    if relevant_from < 1:
        raise DataError(
            "Documents cannot be relevant from this grade on",
            value=relevant_from,
            expected="relevant_from of 1 or more, as grade 0 means not relevant",
            remedy="use 1, or the grade that the data set names",
        )
    _check_finite(run)
    grades = {query: _integers(query, documents) for query, documents in qrels.items()}
    judged = {query: documents for query, documents in grades.items() if any(each > 0 for each in documents.values())}
    if not judged:
        raise DataError(
            "No query has a relevant document, so no metric is defined",
            value=f"{len(qrels)} judged queries",
            expected="at least one judgement with a grade of 1 or more",
            remedy="check the qrels file",
        )
    if run and not run.keys() & qrels.keys():
        raise DataError(
            "The run and the judgements have no query in common",
            value=f"queries such as {list(run)[:3]} in the run, {list(qrels)[:3]} in the judgements",
            expected="the same query ids in both",
            remedy="check that both belong to the same data set and split",
        )
    scores = {query: {document: float(score) for document, score in run.get(query, {}).items()} for query in judged}
    return compute_metrics(metrics, judged, scores, relevant_from)


def means(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Average each metric of `per_query` over the queries for which it is defined."""
    names = dict.fromkeys(name for metrics in values.values() for name in metrics)
    return {name: _mean(metrics[name] for metrics in values.values() if name in metrics) for name in names}


def scores_of_split(ranker: Ranker, data: RankingData, split: str) -> dict[str, list[float]]:
    """Score all candidates of a split: `{query id: [score]}`."""
    candidates = data.splits[split].candidates
    pairs = [pair for query, documents in candidates.items() for pair in data.pairs(query, documents)]
    flat = iter(ranker.score(pairs).tolist())
    return {query: [next(flat) for _ in documents] for query, documents in candidates.items()}


def split_quality(ranker: Ranker, data: RankingData, split: str) -> dict[str, float]:
    """Score the candidates of a split, and return the mean of every metric over its judged queries."""
    return means(split_values(ranker, data, split))


def judged_queries(data: RankingData, split: str) -> int:
    """Number of queries of a split that have a relevant document, and count in its metrics."""
    qrels = data.splits[split].qrels
    return len(qrels) - len(without_relevant(qrels))


def split_values(ranker: Ranker, data: RankingData, split: str) -> dict[str, dict[str, float]]:
    """Score the candidates of a split, and return every metric of its judged queries, see `per_query`."""
    return values_of_scores(scores_of_split(ranker, data, split), data, split)


def values_of_scores(
    scores: Mapping[str, Sequence[float]], data: RankingData, split: str
) -> dict[str, dict[str, float]]:
    """Every metric of the judged queries of a split, from scores of its candidates."""
    chosen = data.splits[split]
    return per_query(chosen.qrels, run_from_scores(chosen.candidates, scores), data.relevant_from)


def agreement(teacher: Run, student: Run) -> dict[str, float]:
    """Agreement of two rankers on the order of the same candidates, without relevance judgements.

    - `kendall_tau`: mean over queries of Kendall's tau-b (Kendall, 1945), from -1 (reversed) to 1 (same order). Tau-b
      is undefined if all scores of a list are equal; it then counts 1 if they are equal in both lists, else 0. Queries
      with a single candidate are left out; without any other query it is 1.
    - `overlap@10`: mean share of the teacher's first 10 that are among the student's first 10, by the tie rule of this
      module. With 10 candidates or fewer it is 1 by construction.

    Raises:
        DataError: The runs do not score the same documents, are empty, or a score is not finite.
    """
    _check_finite(teacher)
    _check_finite(student)
    if not teacher or teacher.keys() != student.keys():
        raise DataError(
            "Two runs cannot be compared",
            value=sorted(teacher.keys() ^ student.keys())[:5],
            expected="the same queries in both runs, and at least one",
            remedy="score the same candidates with both rankers",
        )
    taus, overlaps = [], []
    for query, scores in teacher.items():
        if not scores or scores.keys() != student[query].keys():
            raise DataError(
                f"Two runs cannot be compared on query {query!r}",
                value=sorted(scores.keys() ^ student[query].keys())[:5],
                expected="the same documents in both runs, and at least one",
                remedy="score the same candidates with both rankers",
            )
        if len(scores) > 1:
            ours, theirs = (
                np.array([run[query][document] for document in scores], dtype=np.float32) for run in (teacher, student)
            )
            taus.append(_correlation(kendalltau, ours, theirs))
        best = ranking(scores)[:CUTOFF]
        overlaps.append(len(set(best) & set(ranking(student[query])[:CUTOFF])) / len(best))
    return {"kendall_tau": _mean(taus) if taus else 1.0, "overlap@10": _mean(overlaps)}


def rank_correlation(first: Iterable[Sequence[float]], second: Iterable[Sequence[float]]) -> float:
    """Mean over queries of Spearman's rank correlation (Spearman, 1904) between two scores of the same candidates.

    A list with all scores equal counts 1 if they are equal in both lists, else 0. Queries with a single candidate are
    left out; without any other query the result is 1.

    Args:
        first: Scores of the candidates of each query.
        second: Other scores of the same candidates, in the same order.
    """
    lists = zip(first, second, strict=True)
    values = [_correlation(spearmanr, ours, theirs) for ours, theirs in lists if len(ours) > 1]
    return _mean(values) if values else 1.0


def tied_share(run: Run) -> float:
    """Share of neighbours in the sorted rankings with equal scores in single precision; 0 without neighbours."""
    pairs = tied = 0
    for scores in run.values():
        ordered = np.sort(np.array(list(scores.values()), dtype=np.float32))
        pairs += max(len(ordered) - 1, 0)
        tied += sum(first == second for first, second in pairwise(ordered.tolist()))
    return tied / pairs if pairs else 0.0


def _correlation(
    statistic: Callable[..., Any], first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray
) -> float:
    constant = (bool(np.ptp(first) == 0), bool(np.ptp(second) == 0))
    return float(all(constant)) if any(constant) else float(statistic(first, second).statistic)


def _integers(query: str, grades: Mapping[str, int]) -> dict[str, int]:
    """Grades as Python integers, the only ones that pytrec_eval accepts."""
    try:
        return {document: operator.index(grade) for document, grade in grades.items()}
    except TypeError as error:
        raise DataError(
            f"A grade of query {query!r} is not an integer",
            value=dict(list(grades.items())[:5]),
            expected="integers of 0 or more, such as 0 and 1",
            remedy="give the judgements whole numbers, for instance by rounding",
        ) from error


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _check_finite(run: Run) -> None:
    for query, scores in run.items():
        # Single precision, as in the tie rule: larger doubles would become infinite, and ties.
        with np.errstate(over="ignore"):
            finite = np.isfinite(np.array(list(scores.values()), dtype=np.float64).astype(np.float32))
        if not finite.all():
            bad = [document for document, good in zip(scores, finite, strict=True) if not good]
            raise DataError(
                f"{len(bad)} score(s) of query {query!r} are not finite numbers",
                value={document: scores[document] for document in bad[:5]},
                expected="scores that single precision can hold, neither NaN nor infinite",
                remedy="check the model for overflow, e.g. run it in fp32",
            )
