"""Plans and budgets: formats, numbers of the teacher, composition, and what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hfcompress.errors import PlanError
from hfcompress.importance.importance import Importance
from hfcompress.plan import LayerPlan, PruningPlan, format_ranges, parse_ranges
from hfcompress.recipe import PruneStep
from hfcompress.search.explicit import plan_for_budget

LAYERS, HEADS, FFN = 4, 4, 12

subsets = st.sets(st.integers(0, 40)).map(lambda numbers: tuple(sorted(numbers)))


@st.composite
def plans(draw: st.DrawFn, within: PruningPlan | None = None) -> PruningPlan:
    """A valid plan, of the full teacher or of what `within` has left."""
    current = within or PruningPlan.full(LAYERS, HEADS, FFN)

    def some(numbers: tuple[int, ...], least: int = 0) -> tuple[int, ...]:
        if not numbers:
            return ()
        return tuple(sorted(draw(st.sets(st.sampled_from(numbers), min_size=least))))

    with_heads = [layer.layer for layer in current.layers if layer.heads]
    sure = draw(st.sampled_from(with_heads))  # at least one head has to be left somewhere
    kept = {sure, *some(tuple(layer.layer for layer in current.layers))}
    layers = tuple(
        LayerPlan(layer.layer, some(layer.heads, int(layer.layer == sure)), some(layer.ffn))
        for layer in current.layers
        if layer.layer in kept
    )
    return PruningPlan(LAYERS, HEADS, FFN, layers)


def one_layer(heads: tuple[int, ...] = (0,), ffn: tuple[int, ...] = (0, 1), layer: int = 0) -> PruningPlan:
    return PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(layer, heads, ffn),))


def refused(layers: tuple[LayerPlan, ...], words: list[str]) -> None:
    with pytest.raises(PlanError) as caught:
        PruningPlan(LAYERS, HEADS, FFN, layers)
    assert all(word in str(caught.value) for word in words), str(caught.value)


# Ranges


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((), ""),
        ((5,), "5"),
        ((0, 1), "0-1"),
        ((0, 1, 2, 3, 7), "0-3,7"),
        ((1, 3, 5), "1,3,5"),
        ((8, 9, 10, 12, 99, 100), "8-10,12,99-100"),
    ],
)
def test_ranges(numbers: tuple[int, ...], text: str) -> None:
    assert format_ranges(numbers) == text
    assert parse_ranges(text) == numbers


@given(subsets)
def test_ranges_round_trip(numbers: tuple[int, ...]) -> None:
    assert parse_ranges(format_ranges(numbers)) == numbers


# Plans


def test_full_plan_keeps_everything() -> None:
    plan = PruningPlan.full(2, 3, 4)
    assert plan.layers == (LayerPlan(0, (0, 1, 2), (0, 1, 2, 3)), LayerPlan(1, (0, 1, 2), (0, 1, 2, 3)))
    assert plan.is_full and plan.is_stock


ALL_HEADS = tuple(range(HEADS))


@pytest.mark.parametrize(
    ("layers", "stock"),
    [
        pytest.param([(0, ALL_HEADS, (0, 1)), (3, ALL_HEADS, (4, 9))], True, id="equal widths"),
        pytest.param([(1, ALL_HEADS, tuple(range(FFN)))], True, id="layers only"),
        pytest.param([(0, ALL_HEADS, (0, 1)), (1, ALL_HEADS, (0,))], False, id="uneven widths"),
        pytest.param([(0, (0, 1, 2), (0, 1)), (1, (0, 1, 3), (0, 1))], False, id="a head less"),
        pytest.param([(0, ALL_HEADS, ()), (1, ALL_HEADS, ())], False, id="no FFN"),
    ],
)
def test_what_a_stock_config_can_describe(layers: list[Any], stock: bool) -> None:
    plan = PruningPlan(LAYERS, HEADS, FFN, tuple(LayerPlan(*layer) for layer in layers))
    assert plan.is_stock is stock
    assert not plan.is_full


def test_sublayers_may_be_empty_if_one_head_is_left() -> None:
    PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(0, (), ()), LayerPlan(2, (3,), ())))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        pytest.param((), ["no attention head"], id="no layer"),
        pytest.param((LayerPlan(0, (), (1,)), LayerPlan(1, (), ())), ["no attention head", "2 layers"], id="no head"),
        pytest.param((LayerPlan(LAYERS, (0,), ()),), ["layers", "[4]", "0 to 3"], id="layer out of range"),
        pytest.param((LayerPlan(-1, (0,), ()),), ["layers", "[-1]"], id="negative layer"),
        pytest.param((LayerPlan(1, (0,), ()), LayerPlan(1, (1,), ())), ["layers", "[1, 1]"], id="repeated layer"),
        pytest.param((LayerPlan(1, (0,), ()), LayerPlan(0, (1,), ())), ["layers", "[1, 0]"], id="order of layers"),
        pytest.param((LayerPlan(2, (HEADS,), ()),), ["heads of layer 2", "[4]", "0 to 3"], id="head out of range"),
        pytest.param((LayerPlan(2, (-1, 0), ()),), ["heads of layer 2", "[-1, 0]"], id="negative head"),
        pytest.param((LayerPlan(2, (1, 1), ()),), ["heads of layer 2", "[1, 1]"], id="repeated head"),
        pytest.param((LayerPlan(2, (1, 0), ()),), ["heads of layer 2", "ascending"], id="order of heads"),
        pytest.param((LayerPlan(2, (0,), (FFN,)),), ["FFN neurons of layer 2", "0 to 11"], id="neuron out of range"),
        pytest.param((LayerPlan(2, (0,), (3, 3)),), ["FFN neurons of layer 2", "[3, 3]"], id="repeated neuron"),
    ],
)
def test_plans_that_are_not_valid(layers: tuple[LayerPlan, ...], words: list[str]) -> None:
    refused(layers, words)


@settings(deadline=None)
@given(plans())
def test_plans_round_trip_through_json(plan: PruningPlan) -> None:
    assert PruningPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_plans_round_trip_through_a_file(tmp_path: Path) -> None:
    plan = one_layer((1, 3), (0, 1, 2, 7))
    path = plan.save(tmp_path / "sub" / "plan.json")
    assert PruningPlan.load(path) == plan
    assert json.loads(path.read_text(encoding="utf-8"))["layers"] == [{"layer": 0, "heads": "1,3", "ffn": "0-2,7"}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 99}, ["another format", "99", "format 1"]),
        ({"layers": [{"layer": 0, "heads": "0"}]}, ["cannot be read", "'ffn'"]),
        ({"layers": [{"layer": 0, "heads": "0-x", "ffn": ""}]}, ["cannot be read"]),
        ({"layers": [{"layer": "0", "heads": "0", "ffn": ""}]}, ["cannot be read"]),
        ({"layers": None}, ["cannot be read"]),
        ({"layers": [{"layer": 0, "heads": "0-9", "ffn": ""}]}, ["heads of layer 0"]),
    ],
)
def test_plans_that_cannot_be_read(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(PlanError) as caught:
        PruningPlan.from_dict({**one_layer().to_dict(), **change})
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("key", ["format", "layers_of", "heads_of", "ffn_of", "layers"])
def test_plans_with_a_key_missing(key: str) -> None:
    data = one_layer().to_dict()
    del data[key]
    with pytest.raises(PlanError, match=key):
        PruningPlan.from_dict(data)


# Positions in a model that is pruned already


def test_local_positions() -> None:
    current = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(1, (0, 2, 3), (1, 5, 9)), LayerPlan(3, (1,), (0, 11))))
    plan = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(1, (0, 3), (9,)), LayerPlan(3, (), (0, 11))))
    assert plan.local(current) == [(0, [0, 2], [2]), (1, [], [0, 1])]


def test_local_positions_in_the_teacher_are_the_numbers_themselves() -> None:
    assert one_layer((1, 3), (4, 7), layer=2).local(PruningPlan.full(LAYERS, HEADS, FFN)) == [(2, [1, 3], [4, 7])]


def apply(structure: list[Any], local: list[tuple[int, list[int], list[int]]]) -> list[Any]:
    """What surgery does to a model, on lists of names."""
    return [
        [[structure[layer][0][head] for head in heads], [structure[layer][1][neuron] for neuron in ffn]]
        for layer, heads, ffn in local
    ]


@settings(deadline=None)
@given(data=st.data())
def test_pruning_in_two_steps_is_pruning_at_once(data: st.DataObject) -> None:
    full = PruningPlan.full(LAYERS, HEADS, FFN)
    first = data.draw(plans())
    second = data.draw(plans(within=first))
    teacher = [
        [[(layer, "head", head) for head in range(HEADS)], [(layer, "ffn", neuron) for neuron in range(FFN)]]
        for layer in range(LAYERS)
    ]
    in_two = apply(apply(teacher, first.local(full)), second.local(first))
    assert in_two == apply(teacher, second.local(full))
    assert second.local(second) == [
        (index, list(range(len(layer.heads))), list(range(len(layer.ffn)))) for index, layer in enumerate(second.layers)
    ]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (one_layer((0,), layer=1), ["layer 1"]),
        (one_layer((0, 1)), ["a head of layer 0 (1)"]),
        (one_layer((0,), (0, 5)), ["an FFN neuron of layer 0 (5)"]),
    ],
)
def test_what_is_gone_cannot_be_kept(wanted: PruningPlan, words: list[str]) -> None:
    with pytest.raises(PlanError, match="no longer has") as caught:
        wanted.local(one_layer((0, 2), (0, 1)))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_plan_of_another_teacher() -> None:
    with pytest.raises(PlanError, match=r"another shape.*4 layers, 4 heads, 12 FFN.*4 layers, 4 heads, 16 FFN"):
        one_layer().local(PruningPlan.full(LAYERS, HEADS, 16))


# Budgets


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


def budget(**changes: Any) -> PruneStep:
    return PruneStep(**{"heads": 1.0, "ffn": 1.0, "ffn_multiple": 1, **changes})


def kept(plan: PruningPlan) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    return [(layer.layer, layer.heads, layer.ffn) for layer in plan.layers]


def test_uniform_spread_keeps_the_best_of_each_layer() -> None:
    plan = plan_for_budget(HAND, FULL_HAND, budget(heads=0.5, ffn=0.5, spread="uniform"))
    assert kept(plan) == [(0, (0,), (2, 3)), (1, (0,), (2, 3)), (2, (0,), (0, 1))]


def test_global_spread_keeps_the_best_of_all_layers() -> None:
    plan = plan_for_budget(HAND, FULL_HAND, budget(heads=0.5, ffn=0.5))
    assert kept(plan) == [(0, (0,), ()), (1, (), (2, 3)), (2, (0, 1), (0, 1, 2, 3))]


def test_a_full_budget_keeps_everything() -> None:
    for spread in ("global", "uniform"):
        assert plan_for_budget(HAND, FULL_HAND, budget(spread=spread)).is_full


@pytest.mark.parametrize("spread", ["global", "uniform"])
def test_a_full_share_keeps_everything_also_where_the_multiple_does_not_divide(spread: str) -> None:
    full = PruningPlan.full(2, 2, 40)
    plan = plan_for_budget(random_importance(full), full, PruneStep(heads=1.0, ffn=1.0, spread=spread, ffn_multiple=32))
    assert plan.is_full


def test_layers_are_kept_by_their_number_and_shares_count_only_them() -> None:
    plan = plan_for_budget(HAND, FULL_HAND, budget(heads=0.5, ffn=0.25, layers=[1, 0]))
    assert kept(plan) == [(0, (0,), ()), (1, (0,), (2, 3))]
    plan = plan_for_budget(HAND, FULL_HAND, budget(layers=[2]))
    assert kept(plan) == [(2, (0, 1), (0, 1, 2, 3))]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.33, 0.5, 0.75, 0.9, 1.0])
@pytest.mark.parametrize("layers", [None, [0, 3, 4]])
def test_shares(share: float, layers: list[int] | None) -> None:
    full = PruningPlan.full(6, 12, 64)
    count = len(layers or range(6))
    for spread in ("global", "uniform"):
        plan = plan_for_budget(
            random_importance(full), full, budget(heads=share, ffn=share, layers=layers, spread=spread)
        )
        heads, ffn = [len(layer.heads) for layer in plan.layers], [len(layer.ffn) for layer in plan.layers]
        if spread == "global":
            assert (sum(heads), sum(ffn)) == (round(share * 12 * count), round(share * 64 * count))
        else:
            assert (heads, ffn) == ([round(share * 12)] * count, [round(share * 64)] * count)


def test_the_least_important_of_what_is_left_are_the_ones_cut() -> None:
    full = PruningPlan.full(5, 8, 32)
    scores = random_importance(full, seed=3)
    plan = plan_for_budget(scores, full, budget(heads=0.4, ffn=0.4))
    for what, values in (("heads", scores.heads), ("ffn", scores.ffn)):
        left = [values[layer.layer][number].item() for layer in plan.layers for number in getattr(layer, what)]
        assert sorted(left) == sorted(torch.cat(values).tolist())[-len(left) :]


@pytest.mark.parametrize("multiple", [1, 8, 16, 32])
def test_widths_are_rounded_to_the_multiple(multiple: int) -> None:
    full = PruningPlan.full(4, 4, 96)
    scores = random_importance(full, seed=1)
    exact = plan_for_budget(scores, full, budget(ffn=0.4))
    plan = plan_for_budget(scores, full, budget(ffn=0.4, ffn_multiple=multiple))
    for layer, wanted in zip(plan.layers, exact.layers, strict=True):
        assert len(layer.ffn) % multiple == 0
        assert abs(len(layer.ffn) - len(wanted.ffn)) <= multiple / 2
    assert [layer.heads for layer in plan.layers] == [layer.heads for layer in exact.layers]  # heads are not rounded


def test_rounding_up_stops_at_what_there_is() -> None:
    full = PruningPlan.full(1, 2, 60)
    plan = plan_for_budget(random_importance(full), full, budget(ffn=0.95, ffn_multiple=32))
    assert len(plan.layers[0].ffn) == 60


def test_equal_importance_keeps_the_first() -> None:
    even = importance([[1.0, 1.0]] * 3, [[1.0] * 4] * 3)
    plan = plan_for_budget(even, FULL_HAND, budget(heads=0.5, ffn=0.5, spread="uniform"))
    assert kept(plan) == [(layer, (0,), (0, 1)) for layer in range(3)]


def test_an_ffn_budget_of_0_leaves_the_heads() -> None:
    plan = plan_for_budget(HAND, FULL_HAND, budget(heads=0.5, ffn=0.0))
    assert all(not layer.ffn for layer in plan.layers)
    assert sum(len(layer.heads) for layer in plan.layers) == 3


def test_budgets_of_a_pruned_model_count_what_it_has_in_the_teachers_numbers() -> None:
    current = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(1, (0, 2), (3, 4, 8, 9)), LayerPlan(3, (1, 3), (0, 5, 6, 7))))
    scores = importance([[1.0, 5.0], [3.0, 2.0]], [[1, 2, 3, 4], [8, 7, 6, 5]])
    plan = plan_for_budget(scores, current, budget(heads=0.5, ffn=0.5))
    assert kept(plan) == [(1, (2,), ()), (3, (1,), (0, 5, 6, 7))]
    assert (plan.layers_of, plan.heads_of, plan.ffn_of) == (LAYERS, HEADS, FFN)
    assert plan.local(current) == [(0, [1], []), (1, [0], [0, 1, 2, 3])]
    assert kept(plan_for_budget(scores, current, budget(layers=[3]))) == [(3, (1, 3), (0, 5, 6, 7))]


def test_layers_that_are_gone() -> None:
    current = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(1, (0,), (3,)), LayerPlan(3, (1,), (0,))))
    with pytest.raises(PlanError, match=r"no longer has.*\[0, 2\].*\[1, 3\]"):
        plan_for_budget(importance([[1.0], [2.0]], [[1], [2]]), current, budget(layers=[0, 2, 3]))


@pytest.mark.parametrize(
    "layers", [[3], [0, 12], [], [1, 1]], ids=["out of range", "one out of range", "none", "twice"]
)
def test_layer_numbers_that_are_not_valid(layers: list[int]) -> None:
    with pytest.raises(PlanError, match=r"layers to keep are not valid.*0 to 2.*prune\.layers") as caught:
        plan_for_budget(HAND, FULL_HAND, budget(layers=layers))
    assert str(layers) in str(caught.value)


@pytest.mark.parametrize("spread", ["global", "uniform"])
@pytest.mark.parametrize("share", [0.0, 0.05], ids=["none", "less than a head"])
def test_a_budget_without_heads(share: float, spread: str) -> None:
    with pytest.raises(PlanError, match="no attention head"):
        plan_for_budget(HAND, FULL_HAND, budget(heads=share, spread=spread))
