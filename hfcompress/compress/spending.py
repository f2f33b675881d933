"""What fits into the time that is left: pure arithmetic over measured rates.

A training step costs about three times a forward pass: the backward pass computes gradients of inputs and of weights,
each of which takes as many multiply-adds as the forward pass. The teacher's measured speed gives the first guess, and
the first short recovery the rate itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PASSES = 3.0  # forward passes that a training step costs
FIXED = 0.2  # share of a step that does not shrink with the model: tokenization, embeddings, the optimizer
DOCUMENTS = 8  # of a list
FEWEST_LISTS = 48  # fewer teach nothing
MOST_EPOCHS = 6
EPOCHS = 2  # aimed at
SHORT_SHARE = 0.15  # of the time that is left goes into each round of short recoveries
FULL_SHARE = 0.9  # of what is then left goes into the full recovery; the rest is a reserve


@dataclass(frozen=True)
class Training:
    """A recovery that fits.

    Attributes:
        lists: Lists of documents to train on; 0 where there is no time for any.
        epochs: Passes over them.
        seconds: How long it is expected to take, teacher scoring included.
    """

    lists: int
    epochs: int
    seconds: float


def pair_seconds(teacher_pairs_per_second: float, flops_kept: float) -> float:
    """Expected seconds of training on one pair, where none has been measured."""
    return PASSES * (FIXED + (1 - FIXED) * flops_kept) / teacher_pairs_per_second


def full_recovery(seconds: float, train_pair: float, score_pair: float, available: int, scored: int = 0) -> Training:
    """The longest recovery that fits: first more lists at `EPOCHS` passes, then more passes.

    Args:
        seconds: Time for scoring and training.
        train_pair: Seconds of training on one pair.
        score_pair: Seconds for the teacher's score of one pair.
        available: Train queries that there are.
        scored: Lists that have their scores already.
    """
    best = Training(0, 0, 0.0)
    for epochs in range(1, MOST_EPOCHS + 1):
        # The lists that were scored need training alone.
        lists = math.floor((seconds / DOCUMENTS + scored * score_pair) / (score_pair + epochs * train_pair))
        lists = min(available, lists if lists >= scored else math.floor(seconds / DOCUMENTS / (epochs * train_pair)))
        if lists < FEWEST_LISTS:
            break
        # Beyond EPOCHS, more passes are for those who have no more lists.
        if epochs > EPOCHS and lists < available:
            break
        cost = DOCUMENTS * (max(0, lists - scored) * score_pair + epochs * lists * train_pair)
        best = Training(lists, epochs, cost)
    return best


def short_recoveries(seconds: float, train_pairs: Sequence[float], most: int) -> int:
    """Lists on which several students can be trained once each in the time given; 0 for fewer than `FEWEST_LISTS`.

    Args:
        seconds: Time for all of them.
        train_pairs: Seconds of training on one pair, of each student.
        most: Lists that there are.
    """
    lists = min(most, math.floor(seconds / (DOCUMENTS * sum(train_pairs))))
    return lists if lists >= FEWEST_LISTS else 0


def epochs_for(seconds: float, lists: int, train_pair: float) -> int:
    """Passes over lists that fit into the time; at least one."""
    return max(1, min(MOST_EPOCHS, math.floor(seconds / (DOCUMENTS * lists * train_pair))))
