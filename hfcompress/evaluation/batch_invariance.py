"""Batch invariance: how far the score of a pair depends on its batch and on padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from hfcompress.rankers.base import BatchedRanker, Pair
from hfcompress.report.report import Drift, Stability

QUERIES, DOCUMENTS = 8, 16  # scored lists, and the largest number of documents of each
PADDED_BATCH, PADDING = 8, 2.0


def measure_batch_invariance(
    ranker: BatchedRanker, lists: Sequence[Sequence[Pair]], rank_correlation: float | None = None
) -> Stability:
    """Score pairs one by one, in the ranker's own batches, and with more padding.

    Padding is masked, so scores of a model in fp32 differ by rounding errors only. Dynamic int8 computes the range of
    its inputs from the whole batch, padding included, so its scores depend on the batch.

    Args:
        ranker: The ranker.
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
    """Differences of scores in standard deviations; in units of the scores if these are all equal.

    Args:
        alone: Scores of pairs in batches of one, shape `(pairs,)`.
        other: Scores of the same pairs in other batches.
        sizes: Number of pairs of each query; the pairs of a query are consecutive.
    """
    if not len(alone):
        return Drift(largest=0.0, mean=0.0, swapped_share=0.0)
    alone, other = alone.astype(np.float64), other.astype(np.float64)
    differences = np.abs(other - alone) / (alone.std() or 1.0)
    neighbours = swapped = 0
    for indices in np.split(np.arange(len(alone)), np.cumsum(sizes)[:-1]):
        ranking = indices[np.argsort(-alone[indices], kind="stable")]
        for better, worse in pairwise(ranking):
            if alone[better] > alone[worse]:  # equal scores have no order that could change
                neighbours += 1
                swapped += bool(other[better] < other[worse])
    return Drift(
        largest=float(differences.max()),
        mean=float(differences.mean()),
        swapped_share=swapped / neighbours if neighbours else 0.0,
    )
