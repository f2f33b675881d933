"""Pairs sorted by length into batches under a token budget."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

LENGTH_MULTIPLE = 16  # of tokens, to which batches are padded for few shapes
FEWEST_TOKENS = 1024  # of a batch, if there are enough for all workers


def batches_of(lengths: np.ndarray, budget: int, parallel: int = 1, few_shapes: bool = False) -> Iterator[np.ndarray]:
    """Yield the indices of the pairs of each batch, longest pairs first.

    Workers share the budget; a small request is divided among all of them.

    Args:
        lengths: Tokens of each pair, shape `(pairs,)`.
        budget: Tokens of all batches in flight.
        parallel: Number of batches in flight.
        few_shapes: Create batches of 1, 2, 4, 8, ... pairs, with lengths rounded up, so that most batches have a shape
            for which the runtime has kernels already.
    """
    budget = min(max(budget // parallel, FEWEST_TOKENS), budget, -(-int(lengths.sum()) // parallel))
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, min(budget // padded_length(int(lengths[order[start]]), few_shapes), len(order) - start))
        if few_shapes:
            size = 1 << (size.bit_length() - 1)
        yield order[start : start + size]
        start += size


def padded_length(length: int, few_shapes: bool) -> int:
    """Tokens that a batch is padded to, by its longest pair and whether the runtime wants few shapes."""
    return length + -length % LENGTH_MULTIPLE if few_shapes else length
