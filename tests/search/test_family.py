"""The search: budgets are met, the local search only improves, and the same seed finds the same plans."""

from __future__ import annotations

from itertools import pairwise

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


class HiddenLoss:
    """A loss in which sublayers count very differently, which the importance does not know.

    Args:
        seed: What each sublayer is worth.
        together: How much more it costs to lose several at once.
    """

    def __init__(self, seed: int, together: float = 0.0) -> None:
        self.worth = np.random.default_rng(seed).lognormal(sigma=2, size=(LAYERS, 2))
        self.together = together
        self.chance = 10 * float(self.worth.sum())
        self.judged: list[PruningPlan] = []
        self.kept: list[PruningPlan] = []

    def __call__(self, plan: PruningPlan) -> float:
        self.judged.append(plan)
        gone = np.ones((LAYERS, 2))
        for layer in plan.layers:
            gone[layer.layer] -= len(layer.heads) / HEADS, len(layer.ffn) / FFN
        loss = self.worth * gone
        return float(loss.sum() + self.together * np.outer(loss, loss).sum())

    def keep(self, plan: PruningPlan) -> None:
        self.kept.append(plan)


def search(budgets: list[float], seed: int = 0, steps: int = 8, problem: int = 0) -> list[Found]:
    return search_family(
        importance_of(problem), FULL, TABLE, budgets, HiddenLoss(problem), 16, steps, seed, progress=False
    )


@pytest.mark.parametrize("problem", range(3))
def test_every_budget_is_met(problem: int) -> None:
    budgets = [DENSE / speedup for speedup in (1.2, 2.0, 3.0, 6.0, 10.0)]
    for found, budget in zip(search(budgets, problem=problem), budgets, strict=True):
        assert found.cost == TABLE.of_plan(found.plan) <= budget * (1 + 1e-9)
        assert found.loss == HiddenLoss(problem)(found.plan)
        assert any(layer.heads for layer in found.plan.layers)
        assert all(len(layer.ffn) % 16 == 0 for layer in found.plan.layers)


def test_what_a_cut_loses_is_measured_not_believed() -> None:
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
    for problem in range(24):
        losses = [
            search_family(
                importance_of(problem), FULL, TABLE, budgets, HiddenLoss(problem, 3.0), 16, steps, 0, progress=False
            )[0]
            for steps in (1, 5, 20)
        ]
        assert losses[0].tried == 1 and losses[1].tried <= 5 and losses[2].tried <= 20
        assert losses[2].loss <= losses[0].loss and losses[1].loss <= losses[0].loss
        gains.append(losses[2].loss / losses[0].loss)
    assert np.mean(gains) < 0.98  # it finds what goes well together


def test_the_way_down_is_gone_in_steps() -> None:
    judge = HiddenLoss(0)
    search_family(importance_of(0), FULL, TABLE, [DENSE / 1.4, DENSE / 6], judge, 16, 1, 0, progress=False)
    costs = [TABLE.of_plan(plan) for plan in judge.kept]
    assert judge.kept[0] == FULL and len(costs) == 3  # stops at 2 and 4 times cheaper
    assert all(before / after < 2.3 for before, after in pairwise(costs))


def test_a_plan_does_not_depend_on_the_rest_of_the_family() -> None:
    speedups = (1.2, 1.5, 2.0, 3.0, 6.0)
    family = search([DENSE / speedup for speedup in speedups], problem=1)
    assert family == [search([DENSE / speedup], problem=1)[0] for speedup in speedups]


def test_the_seed_decides() -> None:
    def found(seed: int) -> tuple[PruningPlan, ...]:
        budgets = [DENSE / 1.5, DENSE / 3]
        family = search_family(importance_of(1), FULL, TABLE, budgets, HiddenLoss(1, 30.0), 4, 4, seed, progress=False)
        return tuple(member.plan for member in family)

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


def test_no_plan_is_judged_twice() -> None:
    judge = HiddenLoss(0)
    budgets = [DENSE / speedup for speedup in (2.0, 2.01, 4.0)]
    search_family(importance_of(0), FULL, TABLE, budgets, judge, 32, 12, 0, progress=False)
    assert len(judge.judged) == len(set(judge.judged))


def test_a_layer_that_does_nothing_goes() -> None:
    judge = HiddenLoss(0)
    judge.worth[:] = 1.0
    judge.worth[1] = 0.0
    (found,) = search_family(importance_of(0), FULL, TABLE, [63.5], judge, 16, 4, 0, progress=False)
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
    family = search_family(importance_of(0, current), current, TABLE, budgets, HiddenLoss(0), 8, 8, 0, progress=False)
    assert family[0].plan == current
    for found, budget in zip(family, budgets, strict=True):
        found.plan.local(current)  # all of it is still there
        assert found.cost <= budget
    with pytest.raises(PlanError, match=r"at least 3\.75 .*layers \[2\] with 1 heads"):
        search_family(importance_of(0, current), current, TABLE, [3.7], HiddenLoss(0), 8, 8, 0, progress=False)
