"""Dynamic programme: one level for every module, with the least total error within a budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BUCKETS = 4096


def choose_levels(
    errors: Sequence[np.ndarray], costs: Sequence[np.ndarray], budget: float, buckets: int = BUCKETS
) -> tuple[list[int], float] | None:
    """Choose one level of each module: the least sum of errors whose costs add up to at most the budget.

    A multiple-choice knapsack over bucketed costs. Costs are rounded up, so a choice never exceeds the budget. Rounding
    wastes at most one bucket per module, `len(errors) / buckets` of the budget.

    Args:
        errors: For each module the error of each of its levels.
        costs: For each module the cost of each level, at least 0.
        budget: Largest total cost.
        buckets: Number of buckets.

    Returns:
        The level of each module and the total error; None if even the cheapest levels exceed the budget.
    """
    if not errors:
        return [], 0.0
    # The cheapest level of each module is a lower bound of its cost and need not be bucketed.
    base = float(sum(cost.min() for cost in costs))
    if budget < base:
        return None
    unit = max((budget - base) / buckets, 1e-200)  # above 0, and large enough that the division does not overflow
    best = np.zeros(buckets + 1)  # least error with at most so many buckets spent
    choices = []
    for error, cost in zip(errors, costs, strict=True):
        steps = np.ceil((cost - cost.min()) / unit - 1e-9)
        table = np.full((len(error), buckets + 1), np.inf)
        for level, (value, step) in enumerate(zip(error, steps, strict=True)):
            if step <= buckets:
                shift = int(step)
                table[level, shift:] = best[: buckets + 1 - shift] + value
        choice = table.argmin(0)
        best = table[choice, np.arange(buckets + 1)]
        choices.append((choice, steps))
    remaining = buckets
    levels = []
    for choice, steps in reversed(choices):
        level = int(choice[remaining])
        levels.append(level)
        remaining -= int(steps[level])
    return levels[::-1], float(best[buckets])
