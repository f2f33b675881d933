"""Metrics by name, computed by trec_eval's code (pytrec_eval); AUC from scipy's ranks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytrec_eval
from scipy.stats import rankdata

from hfcompress.errors import DataError

# Names in trec_eval; `{}` stands for the cutoff. Its results have _ instead of a dot in their names.
_TREC_EVAL = {
    "ndcg": "ndcg_cut.{}",
    "mrr": "recip_rank",
    "map": "map",
    "recall": "recall.{}",
    "p": "P.{}",
    "hit": "success.{}",
    "judged": "P.{}",
}
_NAME = re.compile(r"(ndcg|mrr|recall|p|hit|judged)@([1-9]\d{0,5})|map|auc")

Values = dict[str, dict[str, float]]


@dataclass(frozen=True)
class MetricDefinition:
    """A metric of the ranking of one query.

    Attributes:
        name: Name with cutoff, e.g. `ndcg@10`.
        kind: Name without cutoff, e.g. `ndcg`.
        cutoff: Number of top documents that count; None for all.
    """

    name: str
    kind: str
    cutoff: int | None

    @property
    def graded(self) -> bool:
        """Whether it is defined for every judged query, whatever the threshold of relevance."""
        return self.kind in ("ndcg", "judged")

    @property
    def parameter(self) -> str:
        """Name of the measure that trec_eval computes."""
        return _TREC_EVAL[self.kind].format(self.cutoff)

    @property
    def key(self) -> str:
        """Key of trec_eval's result."""
        return self.parameter.replace(".", "_")


def metric_definition(name: str) -> MetricDefinition:
    """Parse the name of a metric.

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
    return MetricDefinition(name, found[1] or name, int(found[2]) if found[2] else None)


def compute_metrics(
    metrics: Sequence[MetricDefinition],
    judged: Mapping[str, dict[str, int]],
    run: Mapping[str, dict[str, float]],
    relevant_from: int,
) -> Values:
    """Compute metrics of every judged query; a query that the run lacks scores 0.

    Args:
        metrics: The metrics.
        judged: Grades, each query with one of 1 or more.
        run: Scores of the judged queries; may be empty for some.
        relevant_from: Lowest grade that is relevant in binary metrics.

    Returns:
        `{query id: {metric: value}}`. A metric that is undefined for a query is left out there.
    """
    graded = _trec_eval(judged, run, [metric for metric in metrics if metric.kind == "ndcg"], 1)
    binary = [metric for metric in metrics if not metric.graded and metric.kind != "auc"]
    relevant = _trec_eval(judged, run, binary, relevant_from)
    # The share of judged documents at the top is the precision if every judged document counts as relevant.
    known = {query: dict.fromkeys(grades, 1) for query, grades in judged.items()}
    found = _trec_eval(known, run, [metric for metric in metrics if metric.kind == "judged"], 1)
    values: Values = {}
    for query, grades in judged.items():
        values[query] = row = {}
        defined = any(grade >= relevant_from for grade in grades.values())
        for metric in metrics:
            if metric.kind == "ndcg":
                row[metric.name] = graded[query][metric.key]
            elif metric.kind == "judged":
                row[metric.name] = _judged(found[query][metric.key], metric.cutoff or 0, len(run[query]))
            elif metric.kind == "auc":
                area = _auc(grades, run[query], relevant_from) if defined else None
                if area is not None:
                    row[metric.name] = area
            elif defined:
                value = relevant[query][metric.key]
                # trec_eval's reciprocal rank has no cutoff, so lower ranks are set to 0 here.
                row[metric.name] = value if metric.kind != "mrr" or value >= 1 / (metric.cutoff or 1) else 0.0
    return values


def _trec_eval(
    qrels: Mapping[str, dict[str, int]],
    run: Mapping[str, dict[str, float]],
    metrics: Sequence[MetricDefinition],
    relevant_from: int,
) -> Values:
    if not metrics:
        return {}
    names = {metric.parameter for metric in metrics}
    return pytrec_eval.RelevanceEvaluator(qrels, names, relevance_level=relevant_from).evaluate(run)


def _judged(precision: float, cutoff: int, ranked: int) -> float:
    """trec_eval divides by the cutoff; a shorter ranking counts only the documents that it has."""
    return precision * cutoff / min(cutoff, ranked) if ranked else 0.0


def _auc(grades: Mapping[str, int], scores: Mapping[str, float], relevant_from: int) -> float | None:
    """Mann-Whitney U over its maximum; None if the ranking lacks relevant or other documents."""
    if not scores:
        return 0.0
    positive = np.array([grades.get(document, 0) >= relevant_from for document in scores])
    hits, others = int(positive.sum()), int((~positive).sum())
    if not hits or not others:
        return None
    ranks = rankdata(np.array(list(scores.values()), dtype=np.float32))
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * others))
