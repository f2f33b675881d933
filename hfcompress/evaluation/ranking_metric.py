"""Ranking quality as an `evaluate.Metric`, for `compute_metrics` and for the suites of the evaluate library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from datasets import Features, Value
from datasets import Sequence as ListOf
from evaluate import Metric, MetricInfo

from hfcompress.errors import DataError
from hfcompress.evaluation.measures import measure_of
from hfcompress.evaluation.metrics import METRICS, means, per_query, run_from_scores, tied_share, without_relevant

NO_DOCUMENT = -100  # the label that `Trainer` fills up lists with

_DESCRIPTION = (
    "Ranking quality by trec_eval: ndcg@K (the gain is the grade), mrr@K, map, recall@K, p@K, hit@K, judged@K, and auc."
)
_INPUTS = """
    predictions: Scores; higher means more relevant. Of pairs, with `query_ids`, or one list for each query.
    references: Grades, whole numbers of 0 or more, in the same shape; -100 where a list has no document.
    query_ids (`list`): Which query each pair belongs to; only for pairs.
    document_ids (`list`): Ids of the documents, in the same shape. They decide between equal scores: the greater id
        comes first. Without them, of documents with equal scores the one given later comes first.
"""
_CITATION = "Van Gysel and de Rijke, Pytrec_eval: An Extremely Fast Python Interface to trec_eval, SIGIR 2018."


class RankingMetric(Metric):
    """Ranking metrics of scored pairs or lists, with the definitions and the tie rule of `hfcompress evaluate`.

    Nothing is downloaded. In a `Trainer`'s `compute_metrics`, where every row is a pair:

        metric = RankingMetric(["ndcg@10"])
        query_ids = dataset["query_id"]

        def compute_metrics(output):
            return metric.compute(
                predictions=output.predictions.ravel(), references=output.label_ids.ravel(), query_ids=query_ids
            )

    `compute` returns the metrics, means over the queries for which they are defined, and `queries` (counted in the
    means), `queries_without_relevant` (left out of them) and `tied_share` (neighbours in a ranking with equal scores).

    Args:
        metrics: Names of the metrics; see `hfcompress.evaluation.metrics.per_query`.
        relevant_from: Lowest grade that is relevant in binary metrics.
        keep_in_memory: Hold what is added in memory; a file in evaluate's cache is needed with several processes only.
        **settings: As for `evaluate.Metric`.

    Raises:
        DataError: There is no such metric; and from `compute`: scores that are not finite, grades that are not whole
            numbers of 0 or more, shapes that do not fit, or no query with a relevant document.
    """

    def __init__(
        self,
        metrics: Sequence[str] = METRICS,
        relevant_from: int = 1,
        keep_in_memory: bool = True,
        **settings: Any,
    ) -> None:
        for name in metrics:
            measure_of(name)
        self.metrics, self.relevant_from = tuple(metrics), relevant_from
        super().__init__(keep_in_memory=keep_in_memory, **settings)

    def _info(self) -> MetricInfo:
        number = Value("float64")
        return MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[
                Features({"predictions": ListOf(number), "references": ListOf(number)}),
                Features({"predictions": number, "references": number}),
            ],
        )

    def _compute(
        self,
        predictions: Sequence[Any],
        references: Sequence[Any],
        query_ids: Sequence[Any] | None = None,
        document_ids: Sequence[Any] | None = None,
    ) -> dict[str, float]:
        qrels: dict[str, dict[str, int]] = {}
        scores: dict[str, list[float]] = {}
        for query, document, score, grade in _rows(predictions, references, query_ids, document_ids):
            listed = qrels.setdefault(query, {})
            # Places are counted with leading zeros, so that ids are in the order given.
            name = f"{len(listed):09d}" if document is None else document
            if name in listed:
                raise DataError(
                    f"Query {query!r} has a document twice",
                    value=name,
                    expected="each document once for a query",
                    remedy="remove the repeated rows",
                )
            listed[name] = _grade(query, grade)
            scores.setdefault(query, []).append(score)
        run = run_from_scores({query: list(listed) for query, listed in qrels.items()}, scores)
        values = per_query(qrels, run, self.relevant_from, self.metrics)
        return {
            **means(values),
            "queries": len(values),
            "queries_without_relevant": len(without_relevant(qrels)),
            "tied_share": tied_share(run),
        }


def _rows(
    predictions: Sequence[Any],
    references: Sequence[Any],
    query_ids: Sequence[Any] | None,
    document_ids: Sequence[Any] | None,
) -> Iterator[tuple[str, str | None, float, float]]:
    """Query, document, score and grade of every pair; lists give numbers to their queries."""
    lists = len(predictions) > 0 and np.ndim(predictions[0]) == 1
    if lists == (query_ids is not None):
        raise DataError(
            "Scores of pairs need query_ids, and lists of scores must have none",
            value=f"{'lists' if lists else 'pairs'} {'without' if query_ids is None else 'with'} query_ids",
            expected="one score for each pair with query_ids, or one list of scores for each query",
            remedy="add query_ids=..., or give lists",
        )
    for given in (query_ids, document_ids):
        if given is not None and len(given) != len(predictions):
            raise _shapes(len(given), len(predictions))
    for place, (score, grade) in enumerate(zip(predictions, references, strict=True)):
        document = None if document_ids is None else document_ids[place]
        if not lists:
            assert query_ids is not None
            yield str(query_ids[place]), None if document is None else str(document), score, grade
            continue
        if len(score) != len(grade) or (document is not None and len(document) != len(score)):
            raise _shapes(len(grade) if document is None else len(document), len(score))
        for column, (one, label) in enumerate(zip(score, grade, strict=True)):
            if label != NO_DOCUMENT:
                yield str(place), None if document is None else str(document[column]), one, label


def _grade(query: str, grade: float) -> int:
    if grade < 0 or grade != int(grade):
        raise DataError(
            f"A grade of query {query} is not a whole number of 0 or more",
            value=grade,
            expected="0 for not relevant, 1 and up for relevant",
            remedy="give references whole numbers, for instance by a threshold",
        )
    return int(grade)


def _shapes(found: int, wanted: int) -> DataError:
    return DataError(
        "Scores, grades and ids do not have the same shape",
        value=f"{found} beside {wanted} scores",
        expected="one of each for every document",
        remedy="give all of them for the same documents, in the same order",
    )
