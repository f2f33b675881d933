"""Successive halving over a family: which members are worth a longer recovery.

Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016. There
the best arm is sought; here the fastest one that ranks well enough. More recovery only lowers a loss, so one that is
small enough early settles the matter for all slower members.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


def survivors(losses: Mapping[float, float], enough: float) -> list[float]:
    """The half of a family that goes on.

    Args:
        losses: Loss of each member so far, by its speed-up.
        enough: A loss that is small enough already.

    Returns:
        The fastest member whose loss is small enough and, of the faster ones, those with the smallest loss; if there is
        no such member, those with the smallest loss. At most half of the members, rounded up, the fastest first.
    """
    keep = math.ceil(len(losses) / 2)
    good = [speed for speed, loss in losses.items() if loss <= enough]
    if not good:
        return sorted(sorted(losses, key=lambda speed: losses[speed])[:keep], reverse=True)
    settled = max(good)
    faster = sorted((speed for speed in losses if speed > settled), key=lambda speed: losses[speed])
    return sorted([settled, *faster[: keep - 1]], reverse=True)


def choice(losses: Mapping[float, float], enough: float) -> float:
    """The member to recover fully: the fastest whose loss is small enough, else the one with the smallest."""
    good = [speed for speed, loss in losses.items() if loss <= enough]
    return max(good) if good else min(losses, key=lambda speed: losses[speed])
