"""Cost tables: linear between their points, and equal to counts on pruned models."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace

import pytest
import torch
from conftest import FAMILIES, FAMILIES_AND_VARIANTS, FFN, HEADS, HIDDEN, LAYERS, make_pico, stock_plan, uneven_plan
from ranking_batches import FULL, random_plan

from hfcompress.models.macs import encoder_macs
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import apply_plan, current_plan, pruned_copy
from hfcompress.pruning.costs.table import CostTable, macs_table, parameter_table

TABLE = CostTable("units", 100.0, {0: 1.0, 2: 5.0, 4: 21.0}, {0: 2.0, 32: 10.0}, {0: 0.5, 4: 4.5}, {0: 0.0, 32: 3.2})


@pytest.mark.parametrize(("heads", "cost"), [(0, 1.0), (1, 3.0), (2, 5.0), (3, 13.0), (4, 21.0)])
def test_costs_are_linear_between_points(heads: int, cost: float) -> None:
    assert TABLE.attention_cost(heads) == cost
    assert TABLE.attention_cost(heads, last=True) == 0.5 + heads
    assert TABLE.ffn_cost(8 * heads) == 2.0 + 2 * heads
    assert TABLE.ffn_cost(8 * heads, last=True) == pytest.approx(0.8 * heads)


def test_a_model_costs_what_its_parts_do_and_its_last_layer_its_own() -> None:
    assert TABLE.total([(4, 32)]) == 100 + 4.5 + 3.2
    assert TABLE.total([(4, 32), (2, 0), (0, 16)]) == pytest.approx(100 + (21 + 10) + (5 + 2) + (0.5 + 1.6))
    plan = PruningPlan(6, 4, 32, (LayerPlan(1, (0, 3), (1,)), LayerPlan(5, (), tuple(range(8)))))
    assert TABLE.of_plan(plan) == TABLE.total([(2, 1), (0, 8)])


def test_tables_are_plain_data() -> None:
    data = json.loads(json.dumps(asdict(TABLE)))
    points = {name: {int(size): cost for size, cost in data.pop(name).items()} for name in list(data)[2:]}
    assert CostTable(**data, **points) == TABLE


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_of_macs_is_the_count(family: str) -> None:
    model = make_pico(family)
    table = macs_table(model.config, current_plan(model))
    rng = random.Random(0)
    for plan in (FULL, uneven_plan(), stock_plan(), *(random_plan(rng) for _ in range(20))):
        assert table.of_plan(plan) == pytest.approx(encoder_macs(model.config, plan), rel=1e-12)
    pruned = apply_plan(model, uneven_plan())  # a table of a pruned model speaks of the same numbers
    assert macs_table(pruned.config, current_plan(pruned)).of_plan(uneven_plan()) == table.of_plan(uneven_plan())


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("family", "changes"), FAMILIES_AND_VARIANTS)
def test_the_table_of_parameters_is_the_count(family: str, changes: dict[str, object]) -> None:
    model = make_pico(family, **changes)
    table = parameter_table(model)
    rng = random.Random(0)
    assert table.of_plan(FULL) == parameters(model)
    for plan in (uneven_plan(), stock_plan(), *(random_plan(rng) for _ in range(10))):
        over = table.of_plan(plan) - parameters(pruned_copy(model, plan))
        if family == "modernbert":
            # Norms before empty sublayers and of dropped layers are pruned too: up to one per sublayer is not counted.
            norm = HIDDEN * (2 if changes else 1)
            assert over in {count * norm for count in range(2 * LAYERS)}
        else:
            assert over == 0


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize("seed", range(3))
def test_a_pruned_model_never_has_more_than_the_table_says(family: str, seed: int) -> None:
    current = random_plan(random.Random(seed))
    model = apply_plan(make_pico(family), current)
    table = parameter_table(model)
    assert table.of_plan(current) == parameters(model)
    rng = random.Random(100 + seed)
    for plan in (random_plan(rng, current=current) for _ in range(8)):
        # Where norms come first, a norm a layer may be missing: the table does not know which layers have one.
        norms = HIDDEN * LAYERS if family == "modernbert" else 0
        assert parameters(pruned_copy(model, plan)) <= table.of_plan(plan) + norms


def test_the_table_of_parameters_sees_what_a_layer_alone_has() -> None:
    """A model with heads in one layer only: its cost without any head cannot be counted, and is not needed."""
    plan = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(1, (2, 3), (0, 1, 2)), LayerPlan(2, (), (4,))))
    model = apply_plan(make_pico(), plan)
    table = parameter_table(model)
    fewer = replace(plan, layers=(LayerPlan(1, (3,), (1,)), plan.layers[1]))
    assert table.of_plan(fewer) == parameters(pruned_copy(model, fewer))
