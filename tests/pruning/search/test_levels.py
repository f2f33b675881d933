"""Sizes to choose from, and the best of them under a budget against every combination there is."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch

from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.pruning.costs.table import CostTable
from hfcompress.pruning.importance.importance import Importance
from hfcompress.pruning.search.levels import (
    Levels,
    SensitivityProfile,
    Sizes,
    best_sizes,
    ffn_widths,
    least_cost,
    plan_of_sizes,
    total_cost,
)

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


def profile_of(seed: int, layers: int = LAYERS) -> SensitivityProfile:
    """Losses that fall with the size; what lies above a layer loses more than the sum of its parts, or less."""
    random = np.random.default_rng(seed + 100)

    def levels(*sizes: int) -> Levels:
        losses = np.cumsum(random.random(len(sizes)))[::-1]
        return Levels(np.array(sizes), losses - losses[-1])

    parts: list[tuple[Levels, Levels] | None] = [(levels(0, 1, 2), levels(0, 8, 16)) for _ in range(layers)]
    tails = np.append(np.cumsum(random.random(layers))[::-1], 0.0)
    return SensitivityProfile(parts, 3 * random.random(layers), tails)


def all_sizes(layers: int = LAYERS) -> list[Sizes]:
    """All sizes, with at least one head."""
    of_layer: list[tuple[int, int] | None] = [None, *product(range(HEADS + 1), (0, 8, 16))]
    return [sizes for sizes in product(of_layer, repeat=layers) if any(size and size[0] for size in sizes)]


def loss_by_hand(sizes: Sizes, profile: SensitivityProfile, coefficients: np.ndarray) -> float:
    last = max(index for index, size in enumerate(sizes) if size is not None)
    loss = float(profile.tail_losses[last + 1])
    for index, size in enumerate(sizes[: last + 1]):
        parts = profile.layers[index]
        assert parts is not None
        if size is None:
            loss += float(profile.layer_losses[index] * coefficients[index].mean())
        else:
            for part, kept, weight in zip(parts, size, coefficients[index], strict=True):
                loss += float(weight * part.losses[list(part.sizes).index(kept)])
    return loss


@pytest.mark.parametrize("last_differs", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_no_sizes_within_the_budget_are_better(seed: int, last_differs: bool) -> None:
    random = np.random.default_rng(seed)
    profile, table = profile_of(seed), random_table(random, last_differs)
    coefficients = random.lognormal(size=(LAYERS, 2))
    everything = [(total_cost(sizes, table), loss_by_hand(sizes, profile, coefficients)) for sizes in all_sizes()]
    least, most = min(cost for cost, _ in everything), max(cost for cost, _ in everything)
    for budget in (least + (most - least) * share for share in (0.01, 0.1, 0.3, 0.5, 0.8, 1.01)):
        sizes = best_sizes(profile, table, budget, coefficients)
        assert sizes is not None and any(size and size[0] for size in sizes)
        assert total_cost(sizes, table) <= budget * (1 + 1e-9)
        loss = loss_by_hand(sizes, profile, coefficients)
        waste = (budget - table.fixed) * LAYERS / 4096
        assert loss >= min(loss for cost, loss in everything if cost <= budget) - 1e-9
        assert loss <= min(loss for cost, loss in everything if cost <= budget - waste or cost == least) + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_the_least_cost_is_the_least_of_all_and_can_be_met(seed: int) -> None:
    table = random_table(np.random.default_rng(seed))
    sizes, cost = least_cost([HEADS] * 2, table)
    assert cost == total_cost(sizes, table) == min(total_cost(sizes, table) for sizes in all_sizes(2))
    found = best_sizes(profile_of(seed, 2), table, cost, np.ones((2, 2)))
    assert found is not None and total_cost(found, table) == pytest.approx(cost)
    assert best_sizes(profile_of(seed, 2), table, cost * (1 - 1e-6), np.ones((2, 2))) is None


def even(heads: float, neurons: float, layer: float = 100.0, tail: float = 100.0) -> SensitivityProfile:
    """Two layers whose heads and neurons are worth the same each."""
    attention, ffn = (
        Levels(np.arange(3), heads * np.arange(2, -1, -1)),
        Levels(np.array([0, 8, 16]), neurons * np.array([2, 1, 0])),
    )
    return SensitivityProfile([(attention, ffn)] * 2, np.full(2, layer), np.array([tail, tail, 0.0]))


def test_a_cheaper_last_layer_is_counted() -> None:
    """What is too much for an inner layer may be kept in the last one."""
    points = {0: 0.0, 16: 16.0}, {0: 0.0, 16: 1.6}
    table = CostTable("seconds", 0.0, {0: 0.0, 2: 0.2}, points[0], {0: 0.0, 2: 0.2}, points[1])
    assert best_sizes(even(1.0, 1.0), table, 2.01, np.ones((2, 2))) == ((2, 0), (2, 16))


def test_a_head_is_kept_even_if_neurons_are_worth_more() -> None:
    table = CostTable("seconds", 0.0, {0: 0.0, 2: 2.0}, {0: 0.0, 16: 2.0}, {0: 0.0, 2: 2.0}, {0: 0.0, 16: 2.0})
    sizes = best_sizes(even(1e-9, 1.0), table, 4.01, np.ones((2, 2)))
    assert sizes is not None and sum(size[0] for size in sizes if size) == 1
    assert sum(size[1] for size in sizes if size) == 24


def test_layers_are_pruned_by_their_loss_as_a_whole() -> None:
    table = CostTable("seconds", 0.0, {0: 1.0, 2: 2.0}, {0: 1.0, 16: 2.0}, {0: 1.0, 2: 2.0}, {0: 1.0, 16: 2.0})
    assert best_sizes(even(1.0, 1.0, layer=0.5), table, 6.0, np.ones((2, 2))) == (None, (2, 16))
    assert best_sizes(even(1.0, 1.0, tail=0.5), table, 6.0, np.ones((2, 2))) == ((2, 16), None)
    sizes = best_sizes(even(1.0, 1.0), table, 6.0, np.ones((2, 2)))
    assert sizes is not None and None not in sizes


def test_a_layer_without_heads_is_not_the_only_one() -> None:
    table = CostTable("seconds", 1.0, {0: 0.5, 2: 2.5}, {0: 0.5, 16: 2.5}, {0: 0.5, 2: 2.5}, {0: 0.5, 16: 2.5})
    assert least_cost([0, 2], table) == ((None, (1, 0)), 3.0)
    attention, ffn = Levels(np.array([0]), np.zeros(1)), Levels(np.array([0, 16]), np.array([1.0, 0.0]))
    full = Levels(np.arange(3), np.array([2.0, 1.0, 0.0]))
    profile = SensitivityProfile([(attention, ffn), (full, ffn)], np.array([9.0, 9.0]), np.array([np.inf, 9.0, 0.0]))
    assert best_sizes(profile, table, 3.0, np.ones((2, 2))) == (None, (1, 0))
    assert best_sizes(
        SensitivityProfile([None, (full, ffn)], np.zeros(2), np.zeros(3)), table, 4.0, np.ones((2, 2))
    ) == (
        None,
        (2, 0),
    )


def test_a_plan_keeps_the_most_important_in_the_numbering_of_the_original_model() -> None:
    importance = Importance.additive(
        "by hand",
        [torch.tensor([1.0, 3.0]), torch.tensor([2.0, 1.0])],
        [torch.tensor([5.0, 1.0, 4.0]), torch.tensor([1.0])],
    )
    current = PruningPlan(6, 4, 9, (LayerPlan(1, (0, 3), (2, 5, 8)), LayerPlan(4, (1, 2), (7,))))
    plan = plan_of_sizes(((1, 2), (2, 0)), importance, current)
    assert plan == PruningPlan(6, 4, 9, (LayerPlan(1, (3,), (2, 8)), LayerPlan(4, (1, 2), ())))
    assert plan_of_sizes(((1, 0), None), importance, current) == PruningPlan(6, 4, 9, (LayerPlan(1, (3,), ()),))
