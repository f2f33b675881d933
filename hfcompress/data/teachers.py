"""Scores of several teachers, weighted and joined into the one column that a student learns from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from hfcompress.data.lists import scores_of
from hfcompress.errors import DataError


@dataclass(frozen=True)
class Teacher:
    """A ranker whose scores a student learns from.

    Attributes:
        ranker: Any `Ranker`, with a tokenizer of its own.
        fingerprint: What distinguishes its scores from those of others; needed with a cache.
        weight: How much it counts beside other teachers.
    """

    ranker: Any
    fingerprint: str = ""
    weight: float = 1.0


def with_teacher_scores(
    lists: Dataset,
    teachers: Iterable[Teacher],
    progress: bool = True,
    cache: Path | None = None,
    column: str = "teacher_scores",
) -> Dataset:
    """Add a column with the scores of one teacher, raw, or of several, joined by `joined_scores`.

    Args:
        lists: What `training_lists` returned.
        teachers: The teachers, one after the other: of a generator, one ranker is held at a time.
        progress: Show a progress bar.
        cache: Folder of scores, as for `with_scores`; each teacher's stand there under its own fingerprint.
        column: Name of the new column.

    Raises:
        DataError: There is no teacher, a weight is not above 0, a score is not finite, or one of several teachers gives
            all documents of a list the same score, list by list.
    """
    scores, weights = [], []
    for teacher in teachers:
        scores.append(scores_of(lists, teacher.ranker, progress, cache, teacher.fingerprint))
        weights.append(teacher.weight)
    return lists.add_column(column, joined_scores(scores, weights))


def joined_scores(scores: Sequence[Sequence[Sequence[float]]], weights: Sequence[float]) -> list[list[float]]:
    """Weighted mean of several teachers' scores, on the first one's scale.

    Rankers differ in where their scores lie and in how far apart: BM25's may reach from 0 to 40, a cross-encoder's
    logits from -11 to 11, and a plain sum would follow whoever spreads most. So each list is centred, since only
    differences within it rank, and each teacher is divided by one number, the root of the variance within a list,
    mean over all lists: not list by list, since it says something that a teacher sees little difference in one. The
    first teacher's scale and its mean of each list are put back, so that weights of the loss, its temperature and
    `mse` mean what they mean with that teacher alone. Where teachers disagree, margins shrink.

    Args:
        scores: For each teacher, for each list, a score for each document.
        weights: One for each teacher; only their proportions count.

    Returns:
        For each list a score for each document; of a single teacher, the scores as they are.

    Raises:
        DataError: There is no teacher, a weight is not above 0, or one of several teachers ranks nothing.
    """
    if not scores or min(weights) <= 0:
        raise DataError(
            "These are no weights of teachers",
            value=list(weights),
            expected="one number above 0 for each of one or more teachers",
            remedy="leave out teachers that are not to count",
        )
    if len(scores) == 1:
        return [list(values) for values in scores[0]]
    total = sum(weights)
    first = [np.asarray(values, dtype=np.float64) for values in scores[0]]
    joined = [np.full(len(values), values.mean()) for values in first]
    scale = 0.0
    for number, (given, weight) in enumerate(zip(scores, weights, strict=True)):
        centred = [np.asarray(values, dtype=np.float64) - np.mean(values) for values in given]
        spread = float(np.sqrt(np.mean([np.mean(values**2) for values in centred])))
        if not spread:
            raise DataError(
                f"Teacher {number + 1} of {len(scores)} gives all documents of a list the same score, in every list",
                expected="a teacher that ranks",
                remedy="leave it out, or check that it belongs to the language and the texts of the data",
            )
        scale = scale or spread
        for target, values in zip(joined, centred, strict=True):
            target += weight / total * scale / spread * values
    return [values.tolist() for values in joined]
