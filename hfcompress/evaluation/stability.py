"""Score stability: the same pairs alone, in a batch and under more padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from hfcompress.evaluation.report import Drift, Stability
from hfcompress.rankers.base import BatchedRanker, Pair

QUERIES, DOCUMENTS = 8, 16  # lists that are scored each way, and the most documents of each
PADDED_BATCH, PADDING = 8, 2.0


def measure_stability(
    ranker: BatchedRanker, lists: Sequence[Sequence[Pair]], rank_correlation: float | None = None
) -> Stability:
    """Score pairs alone, in the ranker's own batches and under more padding.

    Padding is masked, so a model in fp32 gives the same scores but for rounding. Dynamic int8 takes the range of its
    inputs from the whole batch, padding included, and moves with the company that a pair is in.

    Args:
        ranker: What to measure.
        lists: Pairs of one query each; the first `QUERIES` are scored, up to `DOCUMENTS` pairs of each.
        rank_correlation: Rank correlation with the model in fp32, for the report.
    """
    lists = [list(pairs[:DOCUMENTS]) for pairs in lists[:QUERIES]]
    pairs = [pair for listed in lists for pair in listed]
    sizes = [len(listed) for listed in lists]
    alone = ranker.score_in_batches(pairs, 1)
    padded = ranker.score_in_batches(pairs, PADDED_BATCH, PADDING)
    return Stability(
        pairs=len(pairs),
        batched=drift(alone, ranker.score(pairs), sizes),
        padded=drift(alone, padded, sizes),
        rank_correlation=rank_correlation,
    )


def drift(alone: np.ndarray, other: np.ndarray, sizes: Sequence[int]) -> Drift:
    """How far scores moved, in standard deviations; in the scores' own units where these are all equal.

    Args:
        alone: Scores of every pair alone, shape `(pairs,)`.
        other: Scores of the same pairs, computed otherwise.
        sizes: Number of pairs of each query; the pairs of a query follow each other.
    """
    if not len(alone):
        return Drift(largest=0.0, mean=0.0, swapped_share=0.0)
    alone, other = alone.astype(np.float64), other.astype(np.float64)
    moved = np.abs(other - alone) / (alone.std() or 1.0)
    neighbours = swapped = 0
    for places in np.split(np.arange(len(alone)), np.cumsum(sizes)[:-1]):
        ranking = places[np.argsort(-alone[places], kind="stable")]
        for better, worse in pairwise(ranking):
            if alone[better] > alone[worse]:  # equal scores have no order to lose
                neighbours += 1
                swapped += bool(other[better] < other[worse])
    return Drift(
        largest=float(moved.max()),
        mean=float(moved.mean()),
        swapped_share=swapped / neighbours if neighbours else 0.0,
    )
