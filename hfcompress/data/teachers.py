"""Scores of one or several teachers as the training target of a student."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from hfcompress.data.lists import score_lists
from hfcompress.errors import DataError


@dataclass(frozen=True)
class Teacher:
    """A ranker whose scores a student learns.

    Attributes:
        ranker: Any `Ranker`, with its own tokenizer.
        fingerprint: Fingerprint under which its scores are cached; required with a cache.
        weight: Weight relative to other teachers.
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
    """Add a column with the raw scores of one teacher, or the `ensemble_scores` of several.

    Args:
        lists: Lists from `training_lists`.
        teachers: The teachers. A generator keeps only one ranker in memory at a time.
        progress: Show a progress bar.
        cache: Folder of cached scores, as in `with_scores`.
        column: Name of the new column.

    Raises:
        DataError: There is no teacher, a weight is not above 0, a score is not finite, or one of several teachers gives
            equal scores to all documents of every list.
    """
    scores, weights = [], []
    for teacher in teachers:
        scores.append(score_lists(lists, teacher.ranker, progress, cache, teacher.fingerprint))
        weights.append(teacher.weight)
    return lists.add_column(column, ensemble_scores(scores, weights))


def ensemble_scores(scores: Sequence[Sequence[Sequence[float]]], weights: Sequence[float]) -> list[list[float]]:
    """Compute the weighted mean of the scores of several teachers, on the scale of the first one.

    Scores of rankers differ in location and scale: BM25 may range from 0 to 40, logits of a cross-encoder from -11 to
    11, and a plain sum would be dominated by the largest spread. So the scores of each list are centred, since only
    differences within a list rank, and each teacher is divided by the root of its mean within-list variance. One
    divisor per teacher, not per list, keeps the information that a teacher sees little difference in a list. The scale
    of the teacher listed first and its mean of each list are restored, so that loss weights, temperature and `mse` have
    the same meaning as with that teacher alone. Margins shrink where teachers disagree.

    Args:
        scores: Scores by teacher, list and document.
        weights: One weight per teacher, relative to their sum.

    Returns:
        Scores by list and document; those of a single teacher are unchanged.

    Raises:
        DataError: There is no teacher, a weight is not above 0, or one of several teachers gives equal scores to all
            documents of every list.
    """
    if not scores or min(weights) <= 0:
        raise DataError(
            "The weights of the teachers are invalid",
            value=list(weights),
            expected="one number above 0 for each of one or more teachers",
            remedy="leave out teachers that are not to count",
        )
    if len(scores) == 1:
        return [list(values) for values in scores[0]]
    total = sum(weights)
    first = [np.asarray(values, dtype=np.float64) for values in scores[0]]
    mixed = [np.full(len(values), values.mean()) for values in first]
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
        for target, values in zip(mixed, centred, strict=True):
            target += weight / total * scale / spread * values
    return [values.tolist() for values in mixed]
