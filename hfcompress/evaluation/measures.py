"""Metrics by name: computed by the code of trec_eval (pytrec_eval), and AUC from scipy's ranks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytrec_eval
from scipy.stats import rankdata

from hfcompress.errors import DataError

# What trec_eval calls them, with and without a cutoff; `{}` stands for the cutoff. Names of results have _ for a dot.
_TREC_EVAL = {
    "ndcg": "ndcg_cut.{}",
    "mrr": "recip_rank",
    "map": "map",
    "recall": "recall.{}",
    "p": "P.{}",
    "hit": "success.{}",
    "judged": "P.{}",
}
_WITHOUT_CUTOFF = ("map", "auc")
_NAME = re.compile(r"(ndcg|mrr|recall|p|hit|judged)@([1-9]\d{0,5})|map|auc")

Values = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Measure:
    """A metric of one query's ranking.

    Attributes:
        name: How a user names it, e.g. `ndcg@10`.
        kind: Its family, e.g. `ndcg`.
        cutoff: Number of documents that it looks at, counted from the top; None for all.
    """

    name: str
    kind: str
    cutoff: int | None

    @property
    def graded(self) -> bool:
        """Whether it is defined for every judged query, whatever grade counts as relevant."""
        return self.kind in ("ndcg", "judged")

    @property
    def parameter(self) -> str:
        """What trec_eval is asked for."""
        return _TREC_EVAL[self.kind].format(self.cutoff)

    @property
    def key(self) -> str:
        """Name of trec_eval's result."""
        return self.parameter.replace(".", "_")


def measure_of(name: str) -> Measure:
    """Read the name of a metric.

    Raises:
        DataError: There is no such metric.
    """
    found = _NAME.fullmatch(name)
    if not found:
        raise DataError(
            "There is no such metric",
            value=name,
            expected="ndcg@K, mrr@K, recall@K, p@K, hit@K or judged@K with a whole number for K, map or auc",
            remedy="correct the name",
        )
    return Measure(name, name, None) if name in _WITHOUT_CUTOFF else Measure(name, found[1], int(found[2]))


def measured(
    measures: Sequence[Measure],
    judged: Mapping[str, dict[str, int]],
    run: Mapping[str, dict[str, float]],
    relevant_from: int,
) -> Values:
    """Compute metrics of every judged query; a query that the run lacks scores 0.

    Args:
        measures: The metrics.
        judged: Grades, each query with one of 1 or more.
        run: Scores of the judged queries; may be empty for some.
        relevant_from: Lowest grade that is relevant in binary metrics.

    Returns:
        `{query id: {metric: value}}`. A metric that is undefined for a query is left out there.
    """
    graded = _trec_eval(judged, run, [measure for measure in measures if measure.kind == "ndcg"], 1)
    binary = [measure for measure in measures if not measure.graded and measure.kind != "auc"]
    relevant = _trec_eval(judged, run, binary, relevant_from)
    # The share of the first documents that are judged is the precision of a run whose judged documents all count.
    known = {query: dict.fromkeys(grades, 1) for query, grades in judged.items()}
    found = _trec_eval(known, run, [measure for measure in measures if measure.kind == "judged"], 1)
    values: Values = {}
    for query, grades in judged.items():
        values[query] = row = {}
        defined = any(grade >= relevant_from for grade in grades.values())
        for measure in measures:
            if measure.kind == "ndcg":
                row[measure.name] = graded[query][measure.key]
            elif measure.kind == "judged":
                row[measure.name] = _judged(found[query][measure.key], measure.cutoff or 0, len(run[query]))
            elif measure.kind == "auc":
                area = _auc(grades, run[query], relevant_from) if defined else None
                if area is not None:
                    row[measure.name] = area
            elif defined:
                value = relevant[query][measure.key]
                # trec_eval's reciprocal rank has no cut, so lower ranks are set to 0 here.
                row[measure.name] = value if measure.kind != "mrr" or value >= 1 / (measure.cutoff or 1) else 0.0
    return values


def _trec_eval(
    qrels: Mapping[str, dict[str, int]],
    run: Mapping[str, dict[str, float]],
    measures: Sequence[Measure],
    relevant_from: int,
) -> Values:
    if not measures:
        return {}
    names = {measure.parameter for measure in measures}
    return pytrec_eval.RelevanceEvaluator(qrels, names, relevance_level=relevant_from).evaluate(run)


def _judged(precision: float, cutoff: int, ranked: int) -> float:
    """trec_eval divides by the cutoff; a shorter ranking is judged by the documents that it has."""
    return precision * cutoff / min(cutoff, ranked) if ranked else 0.0


def _auc(grades: Mapping[str, int], scores: Mapping[str, float], relevant_from: int) -> float | None:
    """Mann and Whitney's U over its greatest value; None without a relevant and another document in the ranking."""
    if not scores:
        return 0.0
    positive = np.array([grades.get(document, 0) >= relevant_from for document in scores])
    hits, others = int(positive.sum()), int((~positive).sum())
    if not hits or not others:
        return None
    ranks = rankdata(np.array(list(scores.values()), dtype=np.float32))
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * others))
