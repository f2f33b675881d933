"""The search: budgets are met, the local search only improves, and the same seed finds the same plans."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from hfcompress.errors import PlanError
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.pruning.costs.table import CostTable
from hfcompress.pruning.importance.importance import Importance
from hfcompress.pruning.search.free import SearchResult, search_free

LAYERS, HEADS, FFN = 4, 4, 64
FULL = PruningPlan.full(LAYERS, HEADS, FFN)
POINTS = {0: 1.0, 4: 9.0}, {0: 1.0, 64: 17.0}
TABLE = CostTable("milliseconds", 3.0, *POINTS, {0: 0.0, 4: 3.0}, {0: 0.0, 64: 5.0})
DENSE = TABLE.of_plan(FULL)


def importance_of(seed: int, plan: PruningPlan = FULL) -> Importance:
    generator = torch.Generator().manual_seed(seed)
    return Importance.additive(
        "by hand",
        [torch.rand(len(layer.heads), generator=generator) for layer in plan.layers],
        [torch.rand(len(layer.ffn), generator=generator) / 16 for layer in plan.layers],
    )


class HiddenLoss:
    """A loss in which sublayers count very differently, which the importance does not know.

    Args:
        seed: What each sublayer is worth.
        together: How much more it costs to lose several at once.
    """

    def __init__(self, seed: int, together: float = 0.0) -> None:
        self.worth = np.random.default_rng(seed).lognormal(sigma=2, size=(LAYERS, 2))
        self.together = together
        self.uniform_loss = 10 * float(self.worth.sum())
        self.evaluated: list[PruningPlan] = []
        self.cached: list[PruningPlan] = []

    def __call__(self, plan: PruningPlan) -> float:
        self.evaluated.append(plan)
        pruned = np.ones((LAYERS, 2))
        for layer in plan.layers:
            pruned[layer.layer] -= len(layer.heads) / HEADS, len(layer.ffn) / FFN
        loss = self.worth * pruned
        return float(loss.sum() + self.together * np.outer(loss, loss).sum())

    def cache_layers(self, plan: PruningPlan) -> None:
        self.cached.append(plan)


def search(
    budgets: list[float],
    plan_loss: HiddenLoss | None = None,
    problem: int = 0,
    current: PruningPlan = FULL,
    **settings: Any,
) -> list[SearchResult]:
    settings = {"ffn_multiple": 16, "steps": 8, **settings}
    importance = importance_of(problem, current)
    return search_free(
        importance, current, TABLE, budgets, plan_loss or HiddenLoss(problem), progress=False, **settings
    )


@pytest.mark.parametrize("problem", range(3))
def test_every_budget_is_met(problem: int) -> None:
    budgets = [DENSE / speedup for speedup in (1.2, 2.0, 3.0, 6.0, 10.0)]
    for found, budget in zip(search(budgets, problem=problem), budgets, strict=True):
        assert found.cost == TABLE.of_plan(found.plan) <= budget * (1 + 1e-9)
        assert found.loss == HiddenLoss(problem)(found.plan)
        assert any(layer.heads for layer in found.plan.layers)
        assert all(len(layer.ffn) % 16 == 0 for layer in found.plan.layers)


def test_losses_of_cuts_are_measured_not_taken_from_the_importance() -> None:
    """With losses that add up, the first plan is nearly the best, whatever the importance says."""
    for problem in range(4):
        (found,) = search([DENSE / 2], steps=1, problem=problem)
        random = np.random.default_rng(problem)
        others = []
        while len(others) < 300:
            sizes = [(int(random.integers(5)), 16 * int(random.integers(5))) for _ in range(LAYERS)]
            if any(heads for heads, _ in sizes) and DENSE / 2.2 <= TABLE.total(sizes) <= DENSE / 2:
                plan = PruningPlan(
                    LAYERS,
                    HEADS,
                    FFN,
                    tuple(LayerPlan(n, tuple(range(h)), tuple(range(f))) for n, (h, f) in enumerate(sizes)),
                )
                others.append(HiddenLoss(problem)(plan))
        assert found.loss <= min(others) + 1e-9


def test_the_local_search_only_improves() -> None:
    budgets = [DENSE / 2]
    gains = []
    for problem in range(8):
        losses = [search(budgets, HiddenLoss(problem, 3.0), problem, steps=steps)[0] for steps in (1, 5, 20)]
        assert losses[0].trials == 1 and losses[1].trials <= 5 and losses[2].trials <= 20
        assert losses[2].loss <= losses[0].loss and losses[1].loss <= losses[0].loss
        gains.append(losses[2].loss / losses[0].loss)
    assert np.mean(gains) < 0.98  # it finds what goes well together


def test_each_round_halves_the_cost() -> None:
    plan_loss = HiddenLoss(0)
    search([DENSE / 1.4, DENSE / 6], plan_loss, steps=1)
    costs = [TABLE.of_plan(plan) for plan in plan_loss.cached]
    assert plan_loss.cached[0] == FULL and len(costs) == 3  # rounds at 2 and 4 times cheaper
    assert all(before / after < 2.3 for before, after in pairwise(costs))


def test_a_plan_does_not_depend_on_the_other_budgets() -> None:
    speedups = (1.2, 1.5, 2.0, 3.0, 6.0)
    results = search([DENSE / speedup for speedup in speedups], problem=1)
    assert results == [search([DENSE / speedup], problem=1)[0] for speedup in speedups]


def test_the_seed_decides() -> None:
    def found(seed: int) -> tuple[PruningPlan, ...]:
        budgets = [DENSE / 1.5, DENSE / 3]
        results = search(budgets, HiddenLoss(1, 30.0), problem=1, ffn_multiple=4, steps=4, seed=seed)
        return tuple(found.plan for found in results)

    assert found(1) == found(1)
    plans = {found(seed) for seed in range(5)}
    assert len(plans) > 1


def test_results_come_in_the_order_of_the_budgets() -> None:
    ascending = [DENSE / 4, DENSE / 2, DENSE / 1.5]
    assert search(ascending) == search(ascending[::-1])[::-1]
    assert search([DENSE / 2, DENSE / 2]) == search([DENSE / 2]) * 2


def test_a_budget_for_everything_keeps_everything() -> None:
    (found,) = search([1.01 * DENSE])
    assert found.plan.is_full and found.loss == 0


def test_no_plan_is_evaluated_twice() -> None:
    plan_loss = HiddenLoss(0)
    budgets = [DENSE / speedup for speedup in (2.0, 2.01, 4.0)]
    search(budgets, plan_loss, ffn_multiple=32, steps=12)
    assert len(plan_loss.evaluated) == len(set(plan_loss.evaluated))


def test_an_estimate_serves_for_profiles_and_the_loss_for_the_choice() -> None:
    budgets = [DENSE / 1.5, DENSE / 3]
    for problem in range(4):
        plan_loss, estimate = HiddenLoss(problem, 3.0), HiddenLoss(problem, 3.0)
        estimate.worth *= np.random.default_rng(problem).lognormal(sigma=0.3, size=estimate.worth.shape)
        results = search(budgets, plan_loss, problem, estimate=estimate, steps=6)
        assert not plan_loss.cached and len(estimate.cached) == 2
        compared = set(plan_loss.evaluated)
        assert len(compared) == len(plan_loss.evaluated) == sum(found.trials for found in results)
        for found, budget in zip(results, budgets, strict=True):
            within = [plan for plan in compared if TABLE.of_plan(plan) <= budget and 2 * TABLE.of_plan(plan) > budget]
            assert found.loss == min(HiddenLoss(problem, 3.0)(plan) for plan in within)


def test_a_layer_that_does_nothing_is_pruned() -> None:
    plan_loss = HiddenLoss(0)
    plan_loss.worth[:] = 1.0
    plan_loss.worth[1] = 0.0
    (found,) = search([63.5], plan_loss, steps=4)
    assert [layer.layer for layer in found.plan.layers] == [0, 2, 3] and found.loss == 0


@pytest.mark.parametrize("budgets", [[DENSE / 2, 5.9], [5.9], [0.0001]])
def test_a_budget_out_of_reach_says_what_is_in_reach(budgets: list[float]) -> None:
    """The cheapest is one layer with one head, as the last one: 3 + 0.75 + 0."""
    least = 3.75
    if budgets[-1] > least:  # in reach after all
        assert search(budgets)[-1].cost <= budgets[-1]
        budgets = [*budgets, least - 0.01]
    with pytest.raises(PlanError) as caught:
        search(budgets)
    message = str(caught.value)
    loss = HiddenLoss(0)(PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(0, (0,), ()),)))
    assert "beyond reach" in message
    assert f"at least {least:.3g} ({DENSE / least:.2f} times less)" in message
    assert f"{min(budgets):.3g} milliseconds" in message
    assert "layers [0] with 1 heads and 0 FFN neurons" in message and f"calibration loss of {loss:.3g}" in message


def test_just_the_cheapest_plan_is_in_reach() -> None:
    (found,) = search([3.75])
    assert found.cost == pytest.approx(3.75)
    assert [(len(layer.heads), len(layer.ffn)) for layer in found.plan.layers] == [(1, 0)]


def test_a_pruned_model_is_searched_in_what_it_has() -> None:
    current = PruningPlan(
        LAYERS, HEADS, FFN, (LayerPlan(0, (), tuple(range(40))), LayerPlan(2, (1, 3), tuple(range(8, 48))))
    )
    cost = TABLE.of_plan(current)
    budgets = [1.01 * cost, cost / 2, 6.0]
    results = search(budgets, current=current, ffn_multiple=8)
    assert results[0].plan == current
    for found, budget in zip(results, budgets, strict=True):
        found.plan.local(current)  # all of it is still there
        assert found.cost <= budget
    with pytest.raises(PlanError, match=r"at least 3\.75 .*layers \[2\] with 1 heads"):
        search([3.7], current=current, ffn_multiple=8)
