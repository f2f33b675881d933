"""Pruning plans: formats, indices of the original model, composition, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfcompress.errors import PlanError
from hfcompress.models.plan import LayerPlan, PruningPlan, format_ranges, parse_ranges

LAYERS, HEADS, FFN = 4, 4, 12

subsets = st.sets(st.integers(0, 40)).map(lambda numbers: tuple(sorted(numbers)))


@st.composite
def plans(draw: st.DrawFn, within: PruningPlan | None = None) -> PruningPlan:
    """A valid plan, within the full model or within another plan."""
    current = within or PruningPlan.full(LAYERS, HEADS, FFN)

    def some(numbers: tuple[int, ...], least: int = 0) -> tuple[int, ...]:
        if not numbers:
            return ()
        return tuple(sorted(draw(st.sets(st.sampled_from(numbers), min_size=least))))

    with_heads = [layer.layer for layer in current.layers if layer.heads]
    sure = draw(st.sampled_from(with_heads))  # at least one head has to be kept
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
def test_stock_plans(layers: list[Any], stock: bool) -> None:
    plan = PruningPlan(LAYERS, HEADS, FFN, tuple(LayerPlan(*layer) for layer in layers))
    assert plan.is_stock is stock
    assert not plan.is_full


def test_sublayers_may_be_empty_if_one_head_is_kept() -> None:
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


@pytest.mark.parametrize("content", ["{", "[]", "\xff", None])
def test_plan_files_that_cannot_be_read(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(PlanError, match="cannot be read"):
        PruningPlan.load(path)


@pytest.mark.parametrize("key", ["format", "layers_of", "heads_of", "ffn_of", "layers"])
def test_plans_with_a_key_missing(key: str) -> None:
    data = one_layer().to_dict()
    del data[key]
    with pytest.raises(PlanError, match=key):
        PruningPlan.from_dict(data)


# Indices in a model that is already pruned


def test_local_indices() -> None:
    current = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(1, (0, 2, 3), (1, 5, 9)), LayerPlan(3, (1,), (0, 11))))
    plan = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(1, (0, 3), (9,)), LayerPlan(3, (), (0, 11))))
    assert plan.local(current) == [(0, [0, 2], [2]), (1, [], [0, 1])]


def test_local_indices_in_the_original_model_are_unchanged() -> None:
    assert one_layer((1, 3), (4, 7), layer=2).local(PruningPlan.full(LAYERS, HEADS, FFN)) == [(2, [1, 3], [4, 7])]


def apply(structure: list[Any], local: list[tuple[int, list[int], list[int]]]) -> list[Any]:
    """Prune lists of names as surgery prunes a model."""
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
    original = [
        [[(layer, "head", head) for head in range(HEADS)], [(layer, "ffn", neuron) for neuron in range(FFN)]]
        for layer in range(LAYERS)
    ]
    in_two = apply(apply(original, first.local(full)), second.local(first))
    assert in_two == apply(original, second.local(full))
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
def test_plans_cannot_restore_what_is_pruned(wanted: PruningPlan, words: list[str]) -> None:
    with pytest.raises(PlanError, match="no longer has") as caught:
        wanted.local(one_layer((0, 2), (0, 1)))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_plan_of_another_model() -> None:
    with pytest.raises(PlanError, match=r"another shape.*4 layers, 4 heads, 12 FFN.*4 layers, 4 heads, 16 FFN"):
        one_layer().local(PruningPlan.full(LAYERS, HEADS, 16))
