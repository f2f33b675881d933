"""explicit shares: shares of heads, neurons and layers to keep, and what is refused."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from hfcompress.errors import PlanError
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.pruning.importance.importance import Importance
from hfcompress.pruning.search.explicit import plan_for_shares
from hfcompress.recipe import PruneStep

LAYERS, HEADS, FFN = 4, 4, 12


def importance(heads: list[list[float]], ffn: list[list[float]]) -> Importance:
    return Importance.additive("by hand", [torch.tensor(row) for row in heads], [torch.tensor(row) for row in ffn])


def random_importance(current: PruningPlan, seed: int = 0) -> Importance:
    rng = random.Random(seed)
    return importance(
        [[rng.random() for _ in layer.heads] for layer in current.layers],
        [[rng.random() for _ in layer.ffn] for layer in current.layers],
    )


HAND = importance([[4.0, 1.0], [3.0, 2.0], [9.0, 8.0]], [[1, 2, 3, 4], [5, 6, 7, 8], [12, 11, 10, 9]])
FULL_HAND = PruningPlan.full(3, 2, 4)


def shares(**changes: Any) -> PruneStep:
    return PruneStep(**{"heads": 1.0, "ffn": 1.0, "ffn_multiple": 1, **changes})


def kept(plan: PruningPlan) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    return [(layer.layer, layer.heads, layer.ffn) for layer in plan.layers]


def test_uniform_spread_keeps_the_best_of_each_layer() -> None:
    plan = plan_for_shares(HAND, FULL_HAND, shares(heads=0.5, ffn=0.5, spread="uniform"))
    assert kept(plan) == [(0, (0,), (2, 3)), (1, (0,), (2, 3)), (2, (0,), (0, 1))]


def test_global_spread_keeps_the_best_of_all_layers() -> None:
    plan = plan_for_shares(HAND, FULL_HAND, shares(heads=0.5, ffn=0.5))
    assert kept(plan) == [(0, (0,), ()), (1, (), (2, 3)), (2, (0, 1), (0, 1, 2, 3))]


def test_full_shares_keep_everything() -> None:
    for spread in ("global", "uniform"):
        assert plan_for_shares(HAND, FULL_HAND, shares(spread=spread)).is_full


@pytest.mark.parametrize("spread", ["global", "uniform"])
def test_a_full_share_keeps_everything_also_where_the_multiple_does_not_divide(spread: str) -> None:
    full = PruningPlan.full(2, 2, 40)
    plan = plan_for_shares(random_importance(full), full, PruneStep(heads=1.0, ffn=1.0, spread=spread, ffn_multiple=32))
    assert plan.is_full


def test_layers_are_kept_by_their_number_and_shares_count_only_them() -> None:
    plan = plan_for_shares(HAND, FULL_HAND, shares(heads=0.5, ffn=0.25, layers=[1, 0]))
    assert kept(plan) == [(0, (0,), ()), (1, (0,), (2, 3))]
    plan = plan_for_shares(HAND, FULL_HAND, shares(layers=[2]))
    assert kept(plan) == [(2, (0, 1), (0, 1, 2, 3))]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.33, 0.5, 0.75, 0.9, 1.0])
@pytest.mark.parametrize("layers", [None, [0, 3, 4]])
def test_shares(share: float, layers: list[int] | None) -> None:
    full = PruningPlan.full(6, 12, 64)
    count = len(layers or range(6))
    for spread in ("global", "uniform"):
        plan = plan_for_shares(
            random_importance(full), full, shares(heads=share, ffn=share, layers=layers, spread=spread)
        )
        heads, ffn = [len(layer.heads) for layer in plan.layers], [len(layer.ffn) for layer in plan.layers]
        if spread == "global":
            assert (sum(heads), sum(ffn)) == (round(share * 12 * count), round(share * 64 * count))
        else:
            assert (heads, ffn) == ([round(share * 12)] * count, [round(share * 64)] * count)


def test_the_least_important_of_the_kept_layers_are_pruned() -> None:
    full = PruningPlan.full(5, 8, 32)
    scores = random_importance(full, seed=3)
    plan = plan_for_shares(scores, full, shares(heads=0.4, ffn=0.4))
    for what, values in (("heads", scores.heads), ("ffn", scores.ffn)):
        left = [values[layer.layer][number].item() for layer in plan.layers for number in getattr(layer, what)]
        assert sorted(left) == sorted(torch.cat(values).tolist())[-len(left) :]


@pytest.mark.parametrize("multiple", [1, 8, 16, 32])
def test_widths_are_rounded_to_the_multiple(multiple: int) -> None:
    full = PruningPlan.full(4, 4, 96)
    scores = random_importance(full, seed=1)
    exact = plan_for_shares(scores, full, shares(ffn=0.4))
    plan = plan_for_shares(scores, full, shares(ffn=0.4, ffn_multiple=multiple))
    for layer, wanted in zip(plan.layers, exact.layers, strict=True):
        assert len(layer.ffn) % multiple == 0
        assert abs(len(layer.ffn) - len(wanted.ffn)) <= multiple / 2
    assert [layer.heads for layer in plan.layers] == [layer.heads for layer in exact.layers]  # heads are not rounded


def test_rounding_up_stops_at_what_there_is() -> None:
    full = PruningPlan.full(1, 2, 60)
    plan = plan_for_shares(random_importance(full), full, shares(ffn=0.95, ffn_multiple=32))
    assert len(plan.layers[0].ffn) == 60


def test_equal_importance_keeps_the_first() -> None:
    even = importance([[1.0, 1.0]] * 3, [[1.0] * 4] * 3)
    plan = plan_for_shares(even, FULL_HAND, shares(heads=0.5, ffn=0.5, spread="uniform"))
    assert kept(plan) == [(layer, (0,), (0, 1)) for layer in range(3)]


def test_an_ffn_share_of_0_keeps_the_heads() -> None:
    plan = plan_for_shares(HAND, FULL_HAND, shares(heads=0.5, ffn=0.0))
    assert all(not layer.ffn for layer in plan.layers)
    assert sum(len(layer.heads) for layer in plan.layers) == 3


def test_shares_of_a_pruned_model_count_what_it_has_in_indices_of_the_original_model() -> None:
    current = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(1, (0, 2), (3, 4, 8, 9)), LayerPlan(3, (1, 3), (0, 5, 6, 7))))
    scores = importance([[1.0, 5.0], [3.0, 2.0]], [[1, 2, 3, 4], [8, 7, 6, 5]])
    plan = plan_for_shares(scores, current, shares(heads=0.5, ffn=0.5))
    assert kept(plan) == [(1, (2,), ()), (3, (1,), (0, 5, 6, 7))]
    assert (plan.layers_of, plan.heads_of, plan.ffn_of) == (LAYERS, HEADS, FFN)
    assert plan.local(current) == [(0, [1], []), (1, [0], [0, 1, 2, 3])]
    assert kept(plan_for_shares(scores, current, shares(layers=[3]))) == [(3, (1, 3), (0, 5, 6, 7))]


def test_layers_that_are_already_pruned() -> None:
    current = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(1, (0,), (3,)), LayerPlan(3, (1,), (0,))))
    with pytest.raises(PlanError, match=r"no longer has.*\[0, 2\].*\[1, 3\]"):
        plan_for_shares(importance([[1.0], [2.0]], [[1], [2]]), current, shares(layers=[0, 2, 3]))


@pytest.mark.parametrize(
    "layers", [[3], [0, 12], [], [1, 1]], ids=["out of range", "one out of range", "none", "twice"]
)
def test_layer_numbers_that_are_not_valid(layers: list[int]) -> None:
    with pytest.raises(PlanError, match=r"layers to keep are not valid.*0 to 2.*prune\.layers") as caught:
        plan_for_shares(HAND, FULL_HAND, shares(layers=layers))
    assert str(layers) in str(caught.value)


@pytest.mark.parametrize("spread", ["global", "uniform"])
@pytest.mark.parametrize("share", [0.0, 0.05], ids=["none", "less than a head"])
def test_shares_without_heads(share: float, spread: str) -> None:
    with pytest.raises(PlanError, match="no attention head"):
        plan_for_shares(HAND, FULL_HAND, shares(heads=share, spread=spread))
