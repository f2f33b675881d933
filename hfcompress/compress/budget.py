"""The time budget of `compress`: how much recovery fits into the time that remains, by arithmetic over measured rates.

A training step costs about three times a forward pass: the backward pass computes gradients of inputs and of weights,
each with as many MACs as the forward pass. The teacher's measured speed gives the first estimate, and the first short
recovery the actual rate.

Which pruned models get a longer recovery is decided by successive halving (Jamieson and Talwalkar, "Non-stochastic
Best Arm Identification and Hyperparameter Optimization", AISTATS 2016). Their goal is the best arm, ours the fastest
model that ranks well enough. More recovery only lowers a loss, so an early loss that is small enough rules out all
slower models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from hfcompress.compress.context import CompressContext
from hfcompress.compress.step_results import cached_value

PASSES = 3.0  # cost of a training step in forward passes
FIXED = 0.4  # share of a step that does not shrink with the model: embeddings, residual sums, the optimizer
DOCUMENTS = 8  # of a list
FEWEST_LISTS = 48  # with fewer, training has no effect
MOST_EPOCHS = 6  # of all stages together
EPOCHS = 2  # target
MOST_STAGES = 3
SMALLEST_STAGE = 1.2  # smallest speed-up that is worth another search
ROUNDS = 2  # of short recoveries
SHORT_SHARE = 0.15  # of the remaining time, for each round of short recoveries
FULL_SHARE = 0.9  # of the time that then remains, for the full recovery; the rest is a reserve
ZERO_SHOT = 2.0  # passes of the teacher over zero-shot pairs: its own, and those of student and artifact
SEARCH = 0.5  # cost of pruning once, as a share of the time that the whole family took


@dataclass(frozen=True)
class RecoverySize:
    """Size of a recovery that fits the budget.

    Attributes:
        lists: Lists of documents to train on; 0 if there is no time for any.
        epochs: Passes over them.
    """

    lists: int
    epochs: int


def pair_seconds(teacher_pairs_per_second: float, macs_kept: float) -> float:
    """Estimated seconds of training on one pair, for a model that has not been trained yet."""
    return PASSES * (FIXED + (1 - FIXED) * macs_kept) / teacher_pairs_per_second


def full_recovery(seconds: float, train_pair: float, score_pair: float, available: int) -> RecoverySize:
    """The longest recovery that fits: first more lists at `EPOCHS` epochs, then more epochs.

    Args:
        seconds: Time for scoring and training.
        train_pair: Seconds of training on one pair.
        score_pair: Seconds of the teacher for one pair.
        available: Number of train queries.
    """
    best = RecoverySize(0, 0)
    for epochs in range(1, MOST_EPOCHS + 1):
        lists = min(available, math.floor(seconds / (DOCUMENTS * (score_pair + epochs * train_pair))))
        # More than EPOCHS epochs only once all lists are used.
        if lists < FEWEST_LISTS or (epochs > EPOCHS and lists < available):
            break
        best = RecoverySize(lists, epochs)
    return best


def short_recoveries(seconds: float, train_pairs: Sequence[float], most: int) -> int:
    """Number of lists on which every model can be trained for one epoch in the time given; 0 below `FEWEST_LISTS`.

    Args:
        seconds: Time for all of them.
        train_pairs: Seconds of training on one pair, for each model.
        most: Number of lists available.
    """
    lists = min(most, math.floor(seconds / (DOCUMENTS * sum(train_pairs))))
    return lists if lists >= FEWEST_LISTS else 0


def epochs_for(seconds: float, lists: int, train_pair: float) -> int:
    """Epochs over lists that fit into the time; at least one if there is any time."""
    return 0 if seconds <= 0 else max(1, min(MOST_EPOCHS, math.floor(seconds / (DOCUMENTS * lists * train_pair))))


def stages_for(
    seconds: float, lists: int, pruning_speedup: float, train_pair: Callable[[float], float], search: float
) -> tuple[int, int]:
    """Stages of pruning and recovery that fit into the time, and the epochs of each.

    More stages are preferred to more epochs: a half-recovered model is pruned by its new weights.

    Args:
        seconds: Time for all of it.
        lists: Lists to train on.
        pruning_speedup: Speed-up by pruning after the last stage.
        train_pair: Seconds of training on one pair, as a function of progress towards the speed-up, 1 at its end.
        search: Seconds of pruning in each of several stages; a single one takes over the plan that was found.

    Returns:
        Number of stages, at most `MOST_STAGES`, and epochs of each: at least `EPOCHS` if there are several stages, and
        at most `MOST_EPOCHS` in all.
    """
    best = 1, epochs_for(seconds, lists, train_pair(1.0))
    for stages in range(2, MOST_STAGES + 1):
        pair = mean(train_pair(number / stages) for number in range(1, stages + 1))
        each = (seconds - stages * search) / stages
        if pruning_speedup ** (1 / stages) < SMALLEST_STAGE or each < EPOCHS * DOCUMENTS * lists * pair:
            break
        best = stages, min(MOST_EPOCHS // stages, epochs_for(each, lists, pair))
    return best


def survivors(losses: Mapping[float, float], enough: float) -> list[float]:
    """The half of the models that stays in the race.

    Args:
        losses: Loss of each model so far, by its speed-up.
        enough: A loss that is small enough already.

    Returns:
        The fastest model whose loss is small enough and, of the faster ones, those with the smallest loss; if there is
        no such model, those with the smallest loss. At most half of the models, rounded up, the fastest first.
    """
    keep = math.ceil(len(losses) / 2)
    good = [speed for speed, loss in losses.items() if loss <= enough]
    if not good:
        return sorted(sorted(losses, key=lambda speed: losses[speed])[:keep], reverse=True)
    safe = max(good)
    faster = sorted((speed for speed in losses if speed > safe), key=lambda speed: losses[speed])
    return sorted([safe, *faster[: keep - 1]], reverse=True)


def fastest_within(losses: Mapping[float, float], max_loss: float) -> float:
    """The model to recover fully: the fastest one within the loss, else the one with the smallest loss."""
    good = [speed for speed, loss in losses.items() if loss <= max_loss]
    return max(good) if good else min(losses, key=lambda speed: losses[speed])


@dataclass(frozen=True)
class TimeBudget:
    """Shares of the remaining time; each is computed once and reused by a resumed call with the same budget.

    Attributes:
        context: The call.
        fingerprint: Fingerprint of the family of pruned models.
    """

    context: CompressContext
    fingerprint: str

    @property
    def remaining(self) -> float:
        """Seconds for training and for the teacher's scores.

        The final run needs time beside it: it loads the data, exports, and evaluates on the test split.
        """
        context = self.context
        dev, test = len(context.data.splits["dev"]), len(context.data.splits["test"])
        evaluation = self._seconds("unpruned") * (1 + test / dev) / 2
        zero_shot = ZERO_SHOT * context.zero_shot_pairs / context.rate
        return context.remaining - (context.loading + evaluation + zero_shot)

    def lists(self, rates: dict[float, float]) -> int:
        """Number of lists to score: as many as the full recovery of the median model has time for.

        Args:
            rates: Seconds of training on one pair, of each model.
        """
        median = sorted(rates.values())[len(rates) // 2]
        share = (1 - SHORT_SHARE) ** (ROUNDS if len(rates) > 1 else 0) * FULL_SHARE
        available, seconds = len(self.context.data.splits["train"]), share * self.remaining
        lists = full_recovery(seconds, median, 1 / self.context.rate, available).lists
        return int(self._cached("lists", [self.context.supervision.model_dump(mode="json")], lists))

    def short(self, number: int, rates: list[float], most: int) -> int:
        """Lists of a round of short recoveries, 0 for none."""
        lists = short_recoveries(SHORT_SHARE * self.remaining, rates, most)
        return int(self._cached(f"round{number}", [len(rates), most], lists))

    def stages(self, pruning_speedup: float, macs_kept: float, rate: float, lists: int) -> tuple[int, int]:
        """Stages of pruning and recovery that there is time for, and the epochs of each.

        Args:
            pruning_speedup: Speed-up by pruning.
            macs_kept: Share of the encoder's MACs that the pruned model keeps.
            rate: Seconds of training on one pair of the pruned model.
            lists: Lists to train on.
        """
        expected = pair_seconds(self.context.rate, macs_kept)

        def train_pair(progress: float) -> float:
            return rate / expected * pair_seconds(self.context.rate, macs_kept**progress)

        found = stages_for(FULL_SHARE * self.remaining, lists, pruning_speedup, train_pair, self._search)
        stages, epochs = self._cached("stages", [pruning_speedup, lists], found)
        return stages, epochs

    @property
    def _search(self) -> float:
        return SEARCH * self._seconds("family")

    def _seconds(self, step: str) -> float:
        return next(each.seconds for each in self.context.workspace.steps if each.name == step)

    def _cached(self, name: str, inputs: list[Any], value: Any) -> Any:
        known = [self.fingerprint, self.context.goal.seconds, *inputs]
        return cached_value(self.context.workspace, name, known, lambda: value)
