"""Sizes to choose from, and the best of them under a budget against every combination there is."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch

from hfcompress.costs import CostTable
from hfcompress.importance.importance import Importance
from hfcompress.plan import LayerPlan, PruningPlan
from hfcompress.search.levels import Sizes, best_sizes, ffn_widths, least_cost, plan_of_sizes, sublayers

HEADS, FFN, LAYERS = 2, 16, 3


@pytest.mark.parametrize("multiple", [1, 8, 32, 64])
@pytest.mark.parametrize("full", [1, 31, 32, 33, 64, 100, 768, 1536, 4096])
def test_widths_are_multiples_and_the_full_width(full: int, multiple: int) -> None:
    widths = ffn_widths(full, multiple).tolist()
    assert widths[0] == 0 and widths[-1] == full
    assert all(width % multiple == 0 for width in widths[:-1])
    assert all(before < after for before, after in pairwise(widths))
    assert all(after - before <= max(multiple, before / 8) for before, after in pairwise(widths))  # fine all the way
    assert len(widths) < 90


def test_widths_of_nothing() -> None:
    assert ffn_widths(0, 32).tolist() == [0]


def random_table(random: np.random.Generator, last_differs: bool = True) -> CostTable:
    """Costs that rise with the size, with a share that even an empty sublayer costs."""

    def points(sizes: tuple[int, ...]) -> dict[int, float]:
        return dict(zip(sizes, np.cumsum(random.random(len(sizes))).tolist(), strict=True))

    attention, ffn = points((0, 1, 2)), points((0, 8, 16))
    last = (points((0, 1, 2)), points((0, 8, 16))) if last_differs else (attention, ffn)
    return CostTable("seconds", float(random.random()), attention, ffn, *last)


def random_importance(seed: int, layers: int = LAYERS) -> Importance:
    generator = torch.Generator().manual_seed(seed)
    return Importance.additive(
        "by hand",
        [torch.rand(HEADS, generator=generator) for _ in range(layers)],
        [torch.rand(FFN, generator=generator) for _ in range(layers)],
    )


def all_sizes(layers: int = LAYERS) -> list[Sizes]:
    """Everything that can be left: any number of lower layers, at least one head."""
    of_layer = list(product(range(HEADS + 1), (0, 8, 16)))
    return [
        sizes
        for count in range(1, layers + 1)
        for sizes in product(of_layer, repeat=count)
        if any(heads for heads, _ in sizes)
    ]


def weighted_error(sizes: Sizes, importance: Importance, coefficients: np.ndarray) -> float:
    whole = [*sizes, *[(0, 0)] * (len(importance.heads) - len(sizes))]
    return sum(
        attention * importance.head_errors[layer][HEADS - heads].item()
        + ffn * importance.ffn_errors[layer][FFN - width].item()
        for layer, ((heads, width), (attention, ffn)) in enumerate(zip(whole, coefficients.tolist(), strict=True))
    )


def test_levels_have_the_errors_of_their_sizes() -> None:
    importance = random_importance(0)
    for layer, (attention, ffn) in enumerate(sublayers(importance, 8)):
        assert attention.sizes.tolist() == [0, 1, 2] and ffn.sizes.tolist() == [0, 8, 16]
        assert attention.errors.tolist() == importance.head_errors[layer].flip(0).tolist()
        assert ffn.errors.tolist() == importance.ffn_errors[layer][[16, 8, 0]].tolist()


@pytest.mark.parametrize("last_differs", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_no_sizes_within_the_budget_are_better(seed: int, last_differs: bool) -> None:
    random = np.random.default_rng(seed)
    importance, table = random_importance(seed), random_table(random, last_differs)
    model = sublayers(importance, 8)
    coefficients = random.lognormal(size=(LAYERS, 2))
    everything = [(table.total(sizes), weighted_error(sizes, importance, coefficients)) for sizes in all_sizes()]
    least, most = min(cost for cost, _ in everything), max(cost for cost, _ in everything)
    for budget in (least + (most - least) * share for share in (0.01, 0.1, 0.3, 0.5, 0.8, 1.01)):
        sizes = best_sizes(model, table, budget, coefficients)
        assert sizes is not None and any(heads for heads, _ in sizes)
        assert table.total(sizes) <= budget * (1 + 1e-9)
        error = weighted_error(sizes, importance, coefficients)
        waste = (budget - table.fixed) * 2 * LAYERS / 4096
        assert error >= min(error for cost, error in everything if cost <= budget) - 1e-9
        assert error <= min(error for cost, error in everything if cost <= budget - waste or cost == least) + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_the_least_cost_is_the_least_of_all_and_can_be_met(seed: int) -> None:
    random = np.random.default_rng(seed)
    table = random_table(random)
    importance = random_importance(seed, 2)
    model = sublayers(importance, 8)
    sizes, cost = least_cost(model, table)
    assert cost == table.total(sizes)
    one_layer = [table.total(sizes) for sizes in all_sizes(1)]
    assert cost == min(one_layer)
    found = best_sizes(model, table, cost, np.ones((2, 2)))
    assert found is not None and table.total(found) == pytest.approx(cost)
    assert best_sizes(model, table, cost * (1 - 1e-6), np.ones((2, 2))) is None


def test_a_cheaper_last_layer_is_counted() -> None:
    """What is too much for an inner layer may be kept in the last one."""
    importance = Importance.additive("by hand", [torch.ones(2)] * 2, [torch.ones(16)] * 2)
    points = {0: 0.0, 16: 16.0}, {0: 0.0, 16: 1.6}
    table = CostTable("seconds", 0.0, {0: 0.0, 2: 0.2}, points[0], {0: 0.0, 2: 0.2}, points[1])
    assert best_sizes(sublayers(importance, 8), table, 2.01, np.ones((2, 2))) == ((2, 0), (2, 16))


def test_a_head_is_kept_even_if_neurons_are_worth_more() -> None:
    importance = Importance.additive("by hand", [torch.full((2,), 1e-9)] * 2, [torch.ones(16)] * 2)
    table = CostTable("seconds", 0.0, {0: 0.0, 2: 2.0}, {0: 0.0, 16: 2.0}, {0: 0.0, 2: 2.0}, {0: 0.0, 16: 2.0})
    sizes = best_sizes(sublayers(importance, 8), table, 4.01, np.ones((2, 2)))
    assert sizes is not None and sum(heads for heads, _ in sizes) == 1 and sum(width for _, width in sizes) == 24


def test_lower_layers_that_have_no_heads_left_stay_below_those_that_have() -> None:
    importance = Importance.additive("by hand", [torch.zeros(0), torch.ones(2)], [torch.ones(16)] * 2)
    table = CostTable("seconds", 1.0, {0: 0.5, 2: 2.5}, {0: 0.5, 16: 2.5}, {0: 0.5, 2: 2.5}, {0: 0.5, 16: 2.5})
    model = sublayers(importance, 8)
    sizes, cost = least_cost(model, table)
    assert (sizes, cost) == (((0, 0), (1, 0)), 4.0)
    assert best_sizes(model, table, 4.0, np.ones((2, 2))) == sizes


def test_a_plan_keeps_the_most_important_in_the_numbers_of_the_first_teacher() -> None:
    importance = Importance.additive(
        "by hand",
        [torch.tensor([1.0, 3.0]), torch.tensor([2.0, 1.0])],
        [torch.tensor([5.0, 1.0, 4.0]), torch.tensor([1.0])],
    )
    current = PruningPlan(6, 4, 9, (LayerPlan(1, (0, 3), (2, 5, 8)), LayerPlan(4, (1, 2), (7,))))
    plan = plan_of_sizes(((1, 2), (2, 0)), importance, current)
    assert plan == PruningPlan(6, 4, 9, (LayerPlan(1, (3,), (2, 8)), LayerPlan(4, (1, 2), ())))
    assert plan_of_sizes(((1, 0),), importance, current) == PruningPlan(6, 4, 9, (LayerPlan(1, (3,), ()),))
