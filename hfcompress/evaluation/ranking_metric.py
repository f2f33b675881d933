"""Ranking metrics as an `evaluate.Metric`, for `compute_metrics` and for suites of the evaluate library."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from datasets import Features, Value
from datasets import Sequence as ListOf
from evaluate import Metric, MetricInfo

from hfcompress.errors import DataError
from hfcompress.evaluation.metric_definitions import metric_definition
from hfcompress.evaluation.metrics import METRICS, means, per_query, run_from_scores, tied_share, without_relevant
from hfcompress.utils.settings import refuse_unknown

NO_DOCUMENT = -100  # the label that `Trainer` pads lists with

_DESCRIPTION = (
    "Ranking quality by trec_eval: ndcg@K (the gain is the grade), mrr@K, map, recall@K, p@K, hit@K, judged@K, and auc."
)
_INPUTS = """
    predictions: Scores; higher means more relevant. Scores of pairs (with `query_ids`), or one list for each query.
    references: Grades, whole numbers of 0 or more, in the same shape; -100 for padding of a list.
    query_ids (`list`): Id of the query of each pair; only for pairs.
    document_ids (`list`): Ids of the documents, in the same shape. Documents with equal scores are sorted by descending
        id. Without ids, the later one of two documents with equal scores comes first.
"""
_CITATION = "Van Gysel and de Rijke, Pytrec_eval: An Extremely Fast Python Interface to trec_eval, SIGIR 2018."


class RankingMetric(Metric):
    """Ranking metrics of scored pairs or lists, with the definitions and the tie rule of `hfcompress evaluate`.

    Nothing is downloaded. Use in a `Trainer`'s `compute_metrics`, with a pair in every row:

        metric = RankingMetric(["ndcg@10"])
        query_ids = dataset["query_id"]

        def compute_metrics(output):
            return metric.compute(
                predictions=output.predictions.ravel(), references=output.label_ids.ravel(), query_ids=query_ids
            )

    `compute` returns the mean of each metric over the queries for which it is defined, and `queries` (number of queries
    in the means), `queries_without_relevant` (left out) and `tied_share` (share of neighbours with equal scores).

    Args:
        metrics: Names of the metrics; see `hfcompress.evaluation.metrics.per_query`.
        relevant_from: Lowest grade that is relevant in binary metrics.
        keep_in_memory: Keep added batches in memory; only several processes need a file in evaluate's cache.
        **settings: As for `evaluate.Metric`.

    Raises:
        RecipeError: There is no such setting.
        DataError: There is no such metric. From `compute`: scores are not finite, grades are not whole numbers of 0 or
            more, shapes do not match, or no query has a relevant document.
    """

    def __init__(
        self,
        metrics: Sequence[str] = METRICS,
        relevant_from: int = 1,
        keep_in_memory: bool = True,
        **settings: Any,
    ) -> None:
        named = [*inspect.signature(Metric).parameters, *inspect.signature(RankingMetric).parameters]
        refuse_unknown("RankingMetric", settings, set(named) - {"settings", "kwargs"})  # Metric takes any
        for name in metrics:
            metric_definition(name)
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
            # Indices with leading zeros as ids, which sort in the order given.
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
    """Query, document, score and grade of every pair; the ids of lists are their indices."""
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
    for index, (score, grade) in enumerate(zip(predictions, references, strict=True)):
        document = None if document_ids is None else document_ids[index]
        if not lists:
            assert query_ids is not None
            yield str(query_ids[index]), None if document is None else str(document), score, grade
            continue
        if len(score) != len(grade) or (document is not None and len(document) != len(score)):
            raise _shapes(len(grade) if document is None else len(document), len(score))
        for column, (one, label) in enumerate(zip(score, grade, strict=True)):
            if label != NO_DOCUMENT:
                yield str(index), None if document is None else str(document[column]), one, label


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
