"""The search: budgets are met, the local search only improves, and the same seed finds the same plans."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from hfcompress.costs import CostTable
from hfcompress.errors import PlanError
from hfcompress.importance.importance import Importance
from hfcompress.plan import LayerPlan, PruningPlan
from hfcompress.search.family import Found, search_family

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


def hidden_loss(seed: int) -> Callable[[PruningPlan], float]:
    """A loss in which sublayers count very differently, which the importance does not know."""
    worth = np.random.default_rng(seed).lognormal(sigma=2, size=(LAYERS, 2))

    def loss_of(plan: PruningPlan) -> float:
        gone = np.ones((LAYERS, 2))
        for layer in plan.layers:
            gone[layer.layer] -= len(layer.heads) / HEADS, len(layer.ffn) / FFN
        return float((worth * gone).sum())

    return loss_of


def search(budgets: list[float], seed: int = 0, steps: int = 8, problem: int = 0) -> list[Found]:
    return search_family(
        importance_of(problem), FULL, TABLE, budgets, hidden_loss(problem), 16, steps, seed, progress=False
    )


@pytest.mark.parametrize("problem", range(3))
def test_every_budget_is_met(problem: int) -> None:
    budgets = [DENSE / speedup for speedup in (1.2, 2.0, 3.0, 6.0, 10.0)]
    for found, budget in zip(search(budgets, problem=problem), budgets, strict=True):
        assert found.cost == TABLE.of_plan(found.plan) <= budget * (1 + 1e-9)
        assert found.loss == hidden_loss(problem)(found.plan)
        assert any(layer.heads for layer in found.plan.layers)
        assert all(len(layer.ffn) % 16 == 0 for layer in found.plan.layers)


def test_the_local_search_only_improves() -> None:
    budgets = [DENSE / 2]
    gains = []
    for problem in range(4):
        first = search(budgets[:1], steps=1, problem=problem)[0]
        few, many = (search(budgets[:1], steps=steps, problem=problem)[0] for steps in (5, 20))
        assert first.tried == 1 and few.tried <= 5 and many.tried <= 20
        assert many.loss <= first.loss and few.loss <= first.loss
        gains.append(many.loss / first.loss)
    assert np.mean(gains) < 0.75  # it finds out which sublayers count


def test_the_next_budget_begins_with_what_was_found_for_the_one_above() -> None:
    alone, after = [], []
    for problem in range(4):
        alone.append(search([DENSE / 3], steps=1, problem=problem)[0].loss)
        losses = hidden_loss(problem)
        family = search_family(
            importance_of(problem), FULL, TABLE, [DENSE / 2.5, DENSE / 3], losses, 16, 12, 0, progress=False
        )
        after.append(family[1].loss)
    assert np.mean(after) < 0.9 * np.mean(alone)


def test_the_seed_decides() -> None:
    budgets = [DENSE / 1.5, DENSE / 3]
    assert search(budgets, seed=1) == search(budgets, seed=1)
    plans = {tuple(found.plan for found in search(budgets, seed=seed)) for seed in range(3)}
    assert len(plans) > 1


def test_results_come_in_the_order_of_the_budgets() -> None:
    ascending = [DENSE / 4, DENSE / 2, DENSE / 1.5]
    assert search(ascending) == search(ascending[::-1])[::-1]
    assert search([DENSE / 2, DENSE / 2]) == search([DENSE / 2]) * 2


def test_a_budget_for_everything_keeps_everything() -> None:
    (found,) = search([1.01 * DENSE])
    assert found.plan.is_full and found.loss == 0


def test_no_plan_is_judged_twice() -> None:
    judged: list[PruningPlan] = []

    def loss_of(plan: PruningPlan) -> float:
        judged.append(plan)
        return hidden_loss(0)(plan)

    budgets = [DENSE / speedup for speedup in (2.0, 2.01, 4.0)]
    family = search_family(importance_of(0), FULL, TABLE, budgets, loss_of, 32, 12, 0, progress=False)
    assert len(judged) == len(set(judged)) <= sum(found.tried for found in family)


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
    loss = hidden_loss(0)(PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(0, (0,), ()),)))
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
    family = search_family(importance_of(0, current), current, TABLE, budgets, hidden_loss(0), 8, 8, 0, progress=False)
    assert family[0].plan == current
    for found, budget in zip(family, budgets, strict=True):
        found.plan.local(current)  # all of it is still there
        assert found.cost <= budget
    with pytest.raises(PlanError, match=r"at least 5\.75 .*layers \[0, 2\] with 1 heads"):
        search_family(importance_of(0, current), current, TABLE, [5.7], hidden_loss(0), 8, 8, 0, progress=False)
