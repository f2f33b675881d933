"""The queries that pruning looks at: some settle weights, the others judge plans."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from hfcompress.data.lists import RankingCollator, training_lists
from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError

CALIBRATION_DOCUMENTS = 8  # of a query's list
RANDOM_DOCUMENTS = 2  # of these, drawn from the whole corpus
LISTS_PER_BATCH = 4
HELD_OUT = 1 / 2  # share of the calibration queries that judge plans; the others settle weights


class Calibration:
    """Lists of train queries: some settle weights, the others judge plans.

    Weights are settled on the lists that training uses, which hold documents of all kinds. Plans are judged as they
    will be used, on what the first stage found: a relevant document among random ones is told apart by nearly any plan.

    Args:
        data: Data with a train split; of one without any label, all queries count.
        collate: Makes batches of lists.
        queries: How many lists to draw.
        seed: Seed of the draw.

    Attributes:
        fitting: Batches from which importance and weights come.
        judging: Batches on which plans are compared: candidates, spread over the list of the first stage.
        by_query: The lists of `fitting`, one a batch.

    Raises:
        DataError: There are too few train queries with a relevant document, or the corpus is too small.
    """

    def __init__(self, data: RankingData, collate: RankingCollator, queries: int, seed: int) -> None:
        unlabelled = not data.split("train", labelled=False).labelled
        rows = list(
            training_lists(data, CALIBRATION_DOCUMENTS, RANDOM_DOCUMENTS, seed, queries=queries, unlabelled=unlabelled)
        )
        if len(rows) < 2:
            raise DataError(
                "There are too few calibration queries",
                value=len(rows),
                expected="at least 2 train queries with a relevant document; 64 make good plans",
                remedy="add train queries, or raise data.max_queries.train",
            )
        judging = max(1, int(HELD_OUT * len(rows)))
        self.fitting = _batches(rows[judging:], collate, LISTS_PER_BATCH)
        self.judging = _batches([_as_found(data, row) for row in rows[:judging]], collate, LISTS_PER_BATCH)
        self.by_query = _batches(rows[judging:], collate, 1)


def _as_found(data: RankingData, row: dict[str, Any]) -> dict[str, Any]:
    """A training list with candidates of its query in place of its documents, where there are any to compare."""
    train = data.split("train", labelled=False)
    candidates = train.candidates[row["query_id"]]
    chosen = candidates[:: max(1, math.ceil(len(candidates) / CALIBRATION_DOCUMENTS))]
    if len(chosen) < 2:
        return row
    grades = train.qrels.get(row["query_id"], {})
    return {
        **row,
        "document_ids": chosen,
        "documents": data.documents(row["query_id"], chosen),
        "labels": [float(grades.get(document, 0)) for document in chosen],
    }


def _batches(rows: list[dict[str, Any]], collate: RankingCollator, size: int) -> list[dict[str, Tensor]]:
    """Batches of lists of like length, which need less padding."""
    rows = sorted(rows, key=lambda row: max(map(len, row["documents"])))
    return [collate(rows[start : start + size]) for start in range(0, len(rows), size)]
