"""The dynamic programme against every combination there is."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from hfcompress.pruning.search.dynamic import choose_levels


def brute_force(errors: list[np.ndarray], costs: list[np.ndarray], budget: float) -> float | None:
    """Least total error of all combinations within the budget."""
    choices = product(*(range(len(error)) for error in errors))
    totals = [
        sum(error[level] for error, level in zip(errors, levels, strict=True))
        for levels in choices
        if sum(cost[level] for cost, level in zip(costs, levels, strict=True)) <= budget
    ]
    return min(totals, default=None)


def problem(seed: int) -> tuple[list[np.ndarray], list[np.ndarray], np.random.Generator]:
    random = np.random.default_rng(seed)
    levels = random.integers(1, 5, size=random.integers(1, 6))
    errors = [random.random(count) * random.choice([0.1, 1, 10]) for count in levels]
    costs = [random.random(count) for count in levels]
    return errors, costs, random


@pytest.mark.parametrize("seed", range(25))
def test_no_choice_within_the_budget_is_better(seed: int) -> None:
    errors, costs, random = problem(seed)
    least, most = sum(cost.min() for cost in costs), sum(cost.max() for cost in costs)
    for budget in least + (most - least) * random.random(3):
        found = choose_levels(errors, costs, budget)
        assert found is not None
        levels, error = found
        assert error == pytest.approx(sum(row[level] for row, level in zip(errors, levels, strict=True)))
        assert sum(row[level] for row, level in zip(costs, levels, strict=True)) <= budget * (1 + 1e-9)
        best = brute_force(errors, costs, budget)
        # Rounding up wastes at most a bucket for each module of what lies above the cheapest levels.
        waste = (budget - least) * len(errors) / 4096
        worst = brute_force(errors, costs, budget - waste)
        assert best is not None and worst is not None
        assert best - 1e-12 <= error <= worst + 1e-12


@pytest.mark.parametrize("seed", range(25))
def test_costs_that_fill_whole_buckets_are_exact(seed: int) -> None:
    errors, _, random = problem(seed)
    costs = [random.integers(0, 9, size=len(error)).astype(float) for error in errors]
    least, most = sum(cost.min() for cost in costs), sum(cost.max() for cost in costs)
    for budget in random.integers(int(least), int(most) + 2, size=4).tolist():
        found = choose_levels(errors, costs, budget, buckets=max(1, budget - int(least)))
        assert found is not None
        best = brute_force(errors, costs, budget)
        assert found[1] == pytest.approx(best)


@pytest.mark.parametrize("seed", range(10))
def test_a_budget_below_the_cheapest_levels_cannot_be_met(seed: int) -> None:
    errors, costs, _ = problem(seed)
    least = sum(cost.min() for cost in costs)
    assert choose_levels(errors, costs, least * 0.999 - 1e-6) is None
    assert choose_levels(errors, costs, -1.0) is None


@pytest.mark.parametrize("seed", range(10))
def test_the_cheapest_levels_fit_into_just_their_cost(seed: int) -> None:
    errors, costs, _ = problem(seed)
    found = choose_levels(errors, costs, sum(cost.min() for cost in costs))
    assert found is not None and found[0] == [int(cost.argmin()) for cost in costs]


@pytest.mark.parametrize("seed", range(10))
def test_a_budget_for_everything_leaves_the_least_errors(seed: int) -> None:
    errors, costs, _ = problem(seed)
    found = choose_levels(errors, costs, 1.001 * sum(cost.max() for cost in costs) + 1.0)
    assert found is not None and found[0] == [int(error.argmin()) for error in errors]


def test_modules_that_cost_the_same_at_every_level() -> None:
    found = choose_levels([np.array([3.0, 1.0]), np.array([0.0, 2.0])], [np.ones(2), np.array([0.0, 5.0])], 1.0)
    assert found == ([1, 0], 1.0)


def test_no_modules_cost_nothing() -> None:
    assert choose_levels([], [], 0.0) == ([], 0.0)
