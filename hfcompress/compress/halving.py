"""Which pruned models stay in the race, and which one is chosen, by the verdict that each can expect on test.

Which pruned models get a longer recovery is decided by successive halving (Jamieson and Talwalkar, "Non-stochastic
Best Arm Identification and Hyperparameter Optimization", AISTATS 2016). Their goal is the best arm, ours the fastest
model whose verdict on test can be expected to be non-inferior. More recovery only lowers a loss, so a model that is
good enough early rules out all slower ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from hfcompress.evaluation.power import is_expected_to_pass, pass_probability
from hfcompress.report.delta import Delta


def survivors(deltas: Mapping[float, Delta], queries: int) -> list[float]:
    """The half of the models that stays in the race.

    Args:
        deltas: Comparison of each model with its teacher on dev so far, by its speed-up.
        queries: Number of test queries.

    Returns:
        The fastest model that can be expected to pass and, of the faster ones, the most promising; if there is no such
        model, the most promising of all. At most half of the models, rounded up, the fastest first.
    """
    keep = math.ceil(len(deltas) / 2)
    order = _promising(deltas, queries)
    good = [speed for speed, delta in deltas.items() if is_expected_to_pass(delta, queries)]
    if not good:
        return sorted(order[:keep], reverse=True)
    safe = max(good)
    faster = [speed for speed in order if speed > safe]
    return sorted([safe, *faster[: keep - 1]], reverse=True)


def fastest_to_pass(deltas: Mapping[float, Delta], queries: int) -> float:
    """The model to choose: the fastest one that can be expected to pass, else the one that most probably does.

    Args:
        deltas: Comparison of each model with its teacher on dev, by its speed-up.
        queries: Number of test queries.
    """
    good = [speed for speed, delta in deltas.items() if is_expected_to_pass(delta, queries)]
    return max(good) if good else _promising(deltas, queries)[0]


def _promising(deltas: Mapping[float, Delta], queries: int) -> list[float]:
    """Models by the probability that they pass; where it is the same, by their difference."""

    def promise(speed: float) -> tuple[float, float]:
        return pass_probability(deltas[speed], queries), deltas[speed].mean

    return sorted(deltas, key=promise, reverse=True)
