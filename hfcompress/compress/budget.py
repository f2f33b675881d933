"""The time budget of `compress`: how much recovery fits into the time that remains, by arithmetic over measured rates.

A training step costs about three times a forward pass: the backward pass computes gradients of inputs and of weights,
each with as many MACs as the forward pass. The teacher's measured speed gives the first estimate, and the first short
recovery the actual rate.

The full recovery takes all the time that remains, in as many epochs as it has room for. Early stopping ends it where
dev no longer improves. The learning rate decays over the whole of it, and most of the gain comes late; the patience
is therefore a share of the training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from statistics import mean
from typing import Any

from hfcompress.compress.context import CompressContext
from hfcompress.compress.step_results import cached_value

PASSES = 3.0  # cost of a training step in forward passes
FIXED = 0.4  # share of a step that does not shrink with the model: embeddings, residual sums, the optimizer
DOCUMENTS = 8  # of a list
GENERAL_SHARE = 0.3  # of all lists, where train queries alone do not fill the time
MORE_DOCUMENTS = (16, 30)  # of a list where there are no further queries
FEWEST_LISTS = 48  # with fewer, training has no effect
EPOCHS = 2  # passes over the lists, of all stages together, that come before a larger number of lists
ONE_EPOCH_LISTS = 1500  # with as many lists, one epoch is enough for a stage; with fewer, EPOCHS
MOST_EPOCHS = 30  # of all stages together
EVALUATIONS = 2  # on dev in each epoch of the full recovery
MOST_STAGES = 3
SMALLEST_STAGE = 1.2  # smallest speed-up that is worth another search
ROUNDS = 2  # of short recoveries
SHORT_SHARE = 0.15  # of the remaining time, for each round of short recoveries
FULL_SHARE = 0.9  # of the time that then remains, for the full recovery; the rest is a reserve
TYPICAL_MACS = 0.25  # share that a pruned model keeps, before any is found
PATIENCE_SHARE = 3  # a recovery ends after one of so many parts of it without an improvement on dev
FEWEST_EVALUATIONS = 3  # without an improvement
STUDENT_SCORING = 0.75  # time of scoring with a student, in fp32 and then int8, as a share of the teacher's
SEARCH = 0.5  # cost of pruning once, as a share of the time that the whole family took


@dataclass(frozen=True)
class RecoverySize:
    """Size of a recovery that fits the budget.

    Attributes:
        lists: Lists of train queries and pseudo-queries; 0 if there is no time for any.
        epochs: Passes over all lists.
        also: Further lists, of general text.
        documents: Documents of a list.
    """

    lists: int
    epochs: int
    also: int = 0
    documents: int = DOCUMENTS

    @property
    def total(self) -> int:
        """Number of all lists."""
        return self.lists + self.also


def pair_seconds(teacher_pairs_per_second: float, macs_kept: float) -> float:
    """Estimated seconds of training on one pair, for a model that has not been trained yet."""
    return PASSES * (FIXED + (1 - FIXED) * macs_kept) / teacher_pairs_per_second


def full_recovery(
    seconds: float,
    train_pair: float,
    score_pair: float,
    available: int,
    train_queries: int = 0,
    general: int = 0,
    most_documents: int = DOCUMENTS,
    dev_pairs: int = 0,
) -> RecoverySize:
    """The longest recovery that fits.

    New queries come before new documents, and both before further passes over the same lists: first train queries, then
    queries made from documents with a share of `GENERAL_SHARE` of general text, then as many lists of general text as
    of the data, then more documents of each list, then more than `EPOCHS` epochs.

    Args:
        seconds: Time for scoring and training.
        train_pair: Seconds of training on one pair.
        score_pair: Seconds of the teacher for one pair.
        available: Number of train queries and of queries that can be made from documents.
        train_queries: Number of train queries among them.
        general: Number of lists of general text.
        most_documents: Maximum number of documents of a list.
        dev_pairs: Pairs of an evaluation on dev.
    """

    def affordable(epochs: int, documents: int = DOCUMENTS) -> int:
        evaluations = epochs * epoch_pairs(0, documents, dev_pairs) * train_pair
        return math.floor((seconds - evaluations) / (documents * (score_pair + epochs * train_pair)))

    fit = affordable(EPOCHS)
    if min(available, fit) < FEWEST_LISTS:
        lists = min(available, affordable(1))
        return RecoverySize(lists, 1) if lists >= FEWEST_LISTS else RecoverySize(0, 0)
    also = max(0, min(general, round(GENERAL_SHARE * fit), fit - train_queries))
    if also + available > fit:
        return RecoverySize(fit - also, EPOCHS, also)
    lists, also = available, min(general, available, fit - available)
    sizes = [DOCUMENTS, *(size for size in MORE_DOCUMENTS if size <= most_documents)]
    documents = max(size for size in sizes if size == DOCUMENTS or affordable(EPOCHS, size) >= lists + also)
    epochs = max(each for each in range(EPOCHS, MOST_EPOCHS + 1) if affordable(each, documents) >= lists + also)
    return RecoverySize(lists, epochs, also, documents)


def short_recoveries(seconds: float, train_pairs: Sequence[float], most: int, documents: int = DOCUMENTS) -> int:
    """Number of lists on which every model can be trained for one epoch in the time given; 0 below `FEWEST_LISTS`.

    Args:
        seconds: Time for all of them.
        train_pairs: Seconds of training on one pair, for each model.
        most: Number of lists available.
        documents: Documents of a list.
    """
    lists = min(most, math.floor(seconds / (documents * sum(train_pairs))))
    return lists if lists >= FEWEST_LISTS else 0


def epoch_pairs(lists: int, documents: int, dev_pairs: int) -> float:
    """Cost of an epoch in trained pairs, evaluations on dev included.

    Args:
        lists: Lists to train on.
        documents: Documents of a list.
        dev_pairs: Pairs of an evaluation on dev.
    """
    return documents * lists + EVALUATIONS * dev_pairs / PASSES


def epochs_for(seconds: float, pairs: float, train_pair: float) -> int:
    """Epochs that fit into the time; at least one if there is any time.

    Args:
        seconds: Time for all of them.
        pairs: Cost of an epoch, in trained pairs.
        train_pair: Seconds of training on one pair.
    """
    return 0 if seconds <= 0 else max(1, min(MOST_EPOCHS, math.floor(seconds / (pairs * train_pair))))


def patience(epochs: int) -> int:
    """Evaluations on dev without an improvement after which a recovery of so many epochs ends."""
    return max(FEWEST_EVALUATIONS, math.ceil(epochs * EVALUATIONS / PATIENCE_SHARE))


def stages_for(
    seconds: float,
    size: RecoverySize,
    dev_pairs: int,
    pruning_speedup: float,
    train_pair: Callable[[float], float],
    search: float,
) -> tuple[int, int]:
    """Stages of pruning and recovery that fit into the time, and the epochs of each.

    More stages are preferred to more epochs: a half-recovered model is pruned by its new weights.

    Args:
        seconds: Time for all of it.
        size: Lists to train on.
        dev_pairs: Pairs of an evaluation on dev.
        pruning_speedup: Speed-up by pruning after the last stage.
        train_pair: Seconds of training on one pair, as a function of progress towards the speed-up, 1 at its end.
        search: Seconds of pruning in each of several stages; a single one takes over the plan that was found.

    Returns:
        Number of stages, at most `MOST_STAGES`, and epochs of each: if there are several stages, at least `EPOCHS`, or
        one from `ONE_EPOCH_LISTS` lists on; and at most `MOST_EPOCHS` in all.
    """
    pairs = epoch_pairs(size.total, size.documents, dev_pairs)
    best = 1, epochs_for(seconds, pairs, train_pair(1.0))
    least = EPOCHS if size.total < ONE_EPOCH_LISTS else 1
    for stages in range(2, MOST_STAGES + 1):
        pair = mean(train_pair(number / stages) for number in range(1, stages + 1))
        each = (seconds - stages * search) / stages
        if pruning_speedup ** (1 / stages) < SMALLEST_STAGE or each < least * pairs * pair:
            break
        best = stages, min(MOST_EPOCHS // stages, epochs_for(each, pairs, pair))
    return best


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

        The final run needs time beside it: it loads the data, exports and measures speed as for the unpruned model, and
        scores all test and zero-shot queries with the teacher and with the student in fp32 and in int8.
        """
        context = self.context
        pairs = sum(map(len, context.data.splits["test"].candidates.values())) + context.zero_shot_pairs
        scoring = (1 + STUDENT_SCORING) * pairs / context.rate
        return context.remaining - (context.loading + self._seconds("unpruned") + scoring)

    def size(self, rates: dict[float, float]) -> RecoverySize:
        """Lists to score: as many as the full recovery of the median model has time for.

        Args:
            rates: Seconds of training on one pair, of each model.
        """
        context = self.context
        median = sorted(rates.values())[len(rates) // 2]
        share = (1 - SHORT_SHARE) ** (ROUNDS if len(rates) > 1 else 0) * FULL_SHARE
        found = full_recovery(
            share * self.remaining,
            median,
            context.score_cost / context.rate,
            context.own_lists,
            context.real_queries,
            len(context.also) if context.also else 0,
            min(context.recipe.data.candidates, len(context.data.corpus) - 1),
            self._dev_pairs,
        )
        known = [context.supervision.model_dump(mode="json"), context.also.fingerprint if context.also else ""]
        return RecoverySize(**self._cached("lists", known, asdict(found)))

    def short(self, number: int, rates: list[float], size: RecoverySize) -> int:
        """Lists of a round of short recoveries, 0 for none."""
        lists = short_recoveries(SHORT_SHARE * self.remaining, rates, size.total, size.documents)
        return int(self._cached(f"round{number}", [len(rates), *astuple(size)], lists))

    def stages(self, pruning_speedup: float, macs_kept: float, rate: float, size: RecoverySize) -> tuple[int, int]:
        """Stages of pruning and recovery that there is time for, and the epochs of each.

        Args:
            pruning_speedup: Speed-up by pruning.
            macs_kept: Share of the encoder's MACs that the pruned model keeps.
            rate: Seconds of training on one pair of the pruned model.
            size: Lists to train on.
        """
        expected = pair_seconds(self.context.rate, macs_kept)

        def train_pair(progress: float) -> float:
            return rate / expected * pair_seconds(self.context.rate, macs_kept**progress)

        seconds = FULL_SHARE * self.remaining
        found = stages_for(seconds, size, self._dev_pairs, pruning_speedup, train_pair, self._search)
        stages, epochs = self._cached("stages", [pruning_speedup, *astuple(size)], found)
        return stages, epochs

    @property
    def _dev_pairs(self) -> int:
        return sum(map(len, self.context.data.splits["dev"].candidates.values()))

    @property
    def _search(self) -> float:
        return SEARCH * self._seconds("family")

    def _seconds(self, step: str) -> float:
        return next(each.seconds for each in self.context.workspace.steps if each.name == step)

    def _cached(self, name: str, inputs: list[Any], value: Any) -> Any:
        known = [self.fingerprint, self.context.goal.seconds, *inputs]
        return cached_value(self.context.workspace, name, known, lambda: value)
