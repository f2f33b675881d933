"""What fits into the time that is left: pure arithmetic over measured rates.

A training step costs about three times a forward pass: the backward pass computes gradients of inputs and of weights,
each of which takes as many multiply-adds as the forward pass. The teacher's measured speed gives the first guess, and
the first short recovery the rate itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

PASSES = 3.0  # forward passes that a training step costs
FIXED = 0.4  # share of a step that does not shrink with the model: embeddings, residual sums, the optimizer
DOCUMENTS = 8  # of a list
FEWEST_LISTS = 48  # fewer teach nothing
MOST_EPOCHS = 6  # in all rounds together
EPOCHS = 2  # aimed at
MOST_STAGES = 3
SMALLEST_STAGE = 1.2  # speed-up for which it is worth to search anew
SHORT_SHARE = 0.15  # of the time that is left goes into each round of short recoveries
FULL_SHARE = 0.9  # of what is then left goes into the full recovery; the rest is a reserve


@dataclass(frozen=True)
class Training:
    """A recovery that fits.

    Attributes:
        lists: Lists of documents to train on; 0 where there is no time for any.
        epochs: Passes over them.
    """

    lists: int
    epochs: int


def pair_seconds(teacher_pairs_per_second: float, flops_kept: float) -> float:
    """Expected seconds of training on one pair, where none has been measured."""
    return PASSES * (FIXED + (1 - FIXED) * flops_kept) / teacher_pairs_per_second


def full_recovery(seconds: float, train_pair: float, score_pair: float, available: int) -> Training:
    """The longest recovery that fits: first more lists at `EPOCHS` passes, then more passes.

    Args:
        seconds: Time for scoring and training.
        train_pair: Seconds of training on one pair.
        score_pair: Seconds for the teacher's score of one pair.
        available: Train queries that there are.
    """
    best = Training(0, 0)
    for epochs in range(1, MOST_EPOCHS + 1):
        lists = min(available, math.floor(seconds / (DOCUMENTS * (score_pair + epochs * train_pair))))
        # Beyond EPOCHS, more passes are for those who have no more lists.
        if lists < FEWEST_LISTS or (epochs > EPOCHS and lists < available):
            break
        best = Training(lists, epochs)
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
    """Passes over lists that fit into the time; at least one where there is any."""
    return 0 if seconds <= 0 else max(1, min(MOST_EPOCHS, math.floor(seconds / (DOCUMENTS * lists * train_pair))))


def stages_for(
    seconds: float, lists: int, ratio: float, train_pair: Callable[[float], float], search: float
) -> tuple[int, int]:
    """Rounds of pruning and recovery that fit into the time, and the passes in each.

    Rather more rounds than more passes: a model that has recovered halfway is cut by what it has become.

    Args:
        seconds: Time for all of it but the search of one round.
        lists: Lists to train on.
        ratio: Speed-up by pruning in the end.
        train_pair: Seconds of training on one pair, by the share of the way to the ratio: 1 at its end.
        search: Seconds of pruning in a further round.

    Returns:
        Rounds, at most `MOST_STAGES`, and passes in each of them: at least `EPOCHS` where there are several, and
        `MOST_EPOCHS` in all.
    """
    best = 1, epochs_for(seconds, lists, train_pair(1.0))
    for stages in range(2, MOST_STAGES + 1):
        pair = mean(train_pair(number / stages) for number in range(1, stages + 1))
        each = (seconds - (stages - 1) * search) / stages
        if ratio ** (1 / stages) < SMALLEST_STAGE or each < EPOCHS * DOCUMENTS * lists * pair:
            break
        best = stages, min(MOST_EPOCHS // stages, epochs_for(each, lists, pair))
    return best
