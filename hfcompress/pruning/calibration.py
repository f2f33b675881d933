"""Calibration queries: some are for importance and weight updates, the others for the comparison of plans."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from hfcompress.data.also import PREFIX, AlsoTexts
from hfcompress.data.lists import RankingCollator, training_lists
from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError

CALIBRATION_DOCUMENTS = 8  # of a query's list
RANDOM_DOCUMENTS = 2  # of these, drawn from the whole corpus
LISTS_PER_BATCH = 4
HELD_OUT = 1 / 2  # share of the calibration queries on which plans are compared
ALSO_SHARE = 1 / 2  # of the calibration queries, from additional texts where there are any


def also_queries(queries: int) -> int:
    """How many of the calibration queries are from additional texts: a structure that only they need is important."""
    return int(ALSO_SHARE * queries)


class Calibration:
    """Batches of train queries with their documents, split into two disjoint sets of queries.

    Importance and weights are fitted on the lists used in training, which have documents of all kinds. Plans are
    compared on candidates of the first stage, as in use: nearly any plan ranks a relevant document above random ones.

    Args:
        data: Data with a train split; if it has no labels, all its queries are used.
        collate: Makes batches of lists.
        queries: Number of queries to draw.
        seed: Random seed.
        also: Additional texts, from which `also_queries` of the queries are drawn, in both sets.

    Attributes:
        fitting: Batches for importance and weight updates.
        held_out: Batches for the comparison of plans: candidates spread evenly over the list of the first stage.
        by_query: The lists of `fitting` that have labels, or may have, one per batch: those of `data`.

    Raises:
        DataError: There are too few train queries with a relevant document, or the corpus is too small.
    """

    def __init__(
        self, data: RankingData, collate: RankingCollator, queries: int, seed: int, also: AlsoTexts | None = None
    ) -> None:
        unlabelled = not data.split("train", labelled=False).labelled
        others = also_queries(queries) if also else 0
        shape = CALIBRATION_DOCUMENTS, RANDOM_DOCUMENTS, seed
        rows = list(training_lists(data, *shape, queries=queries - others, unlabelled=unlabelled))
        if len(rows) < 2:
            raise DataError(
                "There are too few calibration queries",
                value=len(rows),
                expected="at least 2 train queries with a relevant document; 64 make good plans",
                remedy="add train queries, or raise data.max_queries.train or prune.calibration_queries",
            )
        fitting, held_out = _halves(rows)
        by_query, held_out = fitting, [_with_candidates(data, row) for row in held_out]
        if also and others:
            also_fitting, also_held_out = _halves(list(also.lists(*shape, others)))
            fitting = fitting + also_fitting
            held_out += [_with_candidates(also.data, row) for row in also_held_out]
        self.fitting = _batches(fitting, collate, LISTS_PER_BATCH)
        self.held_out = _batches(held_out, collate, LISTS_PER_BATCH)
        self.by_query = _batches(by_query, collate, 1)


def _halves(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lists for fitting and held-out ones; a single list is held out."""
    held_out = max(1, int(HELD_OUT * len(rows)))
    return rows[held_out:], rows[:held_out]


def _with_candidates(data: RankingData, row: dict[str, Any]) -> dict[str, Any]:
    """A training list whose documents are replaced by candidates of its query, if there are at least two."""
    train, query = data.split("train", labelled=False), row["query_id"].removeprefix(PREFIX)
    candidates = train.candidates[query]
    chosen = candidates[:: max(1, math.ceil(len(candidates) / CALIBRATION_DOCUMENTS))]
    if len(chosen) < 2:
        return row
    grades = train.qrels.get(query, {})
    return {
        **row,
        "document_ids": chosen,
        "documents": data.documents(query, chosen),
        "labels": [float(grades.get(document, 0)) for document in chosen],
    }


def _batches(rows: list[dict[str, Any]], collate: RankingCollator, size: int) -> list[dict[str, Tensor]]:
    """Batches of lists, sorted by length for less padding."""
    rows = sorted(rows, key=lambda row: max(map(len, row["documents"])))
    return [collate(rows[start : start + size]) for start in range(0, len(rows), size)]
