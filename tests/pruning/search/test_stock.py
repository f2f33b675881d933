"""Stock plans: whole layers and one width, within the budget, and loaded without any custom code."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, make_pico, random_inputs, uneven_plan
from conftest import FFN as PICO_FFN
from conftest import HEADS as PICO_HEADS
from transformers import AutoModelForSequenceClassification

from hfcompress.errors import PlanError
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import apply_plan, current_plan, needs_custom_code
from hfcompress.pruning.costs.table import CostTable, macs_table
from hfcompress.pruning.importance.importance import Importance, most_important
from hfcompress.pruning.search.free import SearchResult
from hfcompress.pruning.search.stock import search_stock

LAYERS, HEADS, FFN = 4, 2, 32
FULL = PruningPlan.full(LAYERS, HEADS, FFN)
TABLE = CostTable("units", 1.0, {0: 0.0, 2: 2.0}, {0: 0.0, 32: 4.0}, {0: 0.0, 2: 1.0}, {0: 0.0, 32: 2.0})


def importance_of(seed: int, heads: int = HEADS, ffn: int = FFN, layers: int = LAYERS) -> Importance:
    generator = torch.Generator().manual_seed(seed)
    return Importance.additive(
        "by hand",
        [torch.rand(heads, generator=generator) for _ in range(layers)],
        [torch.rand(ffn, generator=generator) for _ in range(layers)],
    )


def loss_from(seed: int) -> Callable[[PruningPlan], float]:
    """Every layer and every neuron has a worth of its own, which the importance does not know."""
    generator = torch.Generator().manual_seed(100 + seed)
    worth = torch.rand(LAYERS, FFN, generator=generator)

    def plan_loss(plan: PruningPlan) -> float:
        kept = sum(float(worth[layer.layer, list(layer.ffn)].sum()) for layer in plan.layers)
        return float(worth.sum()) - kept

    return plan_loss


def search(
    importance: Importance,
    budgets: list[float],
    plan_loss: Callable[[PruningPlan], float],
    current: PruningPlan = FULL,
    **settings: int,
) -> list[SearchResult]:
    settings = {"ffn_multiple": 8, "steps": 8, **settings}
    return search_stock(
        importance, current, TABLE, budgets, plan_loss, is_stock=lambda plan: True, progress=False, **settings
    )


@pytest.mark.parametrize("seed", range(4))
def test_of_all_that_fit_the_best_is_taken(seed: int) -> None:
    importance, plan_loss = importance_of(seed), loss_from(seed)
    budgets = [TABLE.of_plan(FULL) * share for share in (0.95, 0.6, 0.4, 0.25)]
    results = search(importance, budgets, plan_loss, steps=1000)
    for found, budget in zip(results, budgets, strict=True):
        losses = []
        for count in range(1, LAYERS + 1):
            widths = [width for width in (8, 16, 24, 32) if TABLE.total([(HEADS, width)] * count) <= budget]
            for indices in combinations(range(LAYERS), count) if widths else ():
                layers = tuple(
                    LayerPlan(layer, (0, 1), tuple(most_important(importance.ffn[layer], max(widths))))
                    for layer in indices
                )
                losses.append(plan_loss(PruningPlan(LAYERS, HEADS, FFN, layers)))
        assert found.loss == min(losses) == plan_loss(found.plan)
        assert found.cost == TABLE.of_plan(found.plan) <= budget
        assert found.plan.is_stock and found.trials == len(losses)


def test_few_steps_try_the_choices_of_layers_that_lose_least() -> None:
    importance = importance_of(0)
    importance.head_errors[1].fill_(0)
    importance.ffn_errors[1].fill_(0)
    evaluated: list[PruningPlan] = []
    search(importance, [18.0], lambda plan: evaluated.append(plan) or 1.0, ffn_multiple=32, steps=4)
    assert len(evaluated) <= 4
    with_three = [[layer.layer for layer in plan.layers] for plan in evaluated if len(plan.layers) == 3]
    assert with_three == [[0, 2, 3]]  # the layer without any error is pruned first


def test_a_budget_for_everything_keeps_everything() -> None:
    cost = TABLE.of_plan(FULL)
    (found,) = search(importance_of(0), [cost], loss_from(0), steps=100)
    assert found.plan.is_full and found.loss == pytest.approx(0, abs=1e-5)


def test_out_of_reach() -> None:
    with pytest.raises(PlanError, match=r"beyond reach.*at least 2\.5 .*layers \[0\] with 2 heads and 8 FFN neurons"):
        search(importance_of(0), [2.4], loss_from(0))


def test_a_stock_model_is_searched_further_in_the_numbering_of_the_original_model() -> None:
    current = PruningPlan(8, HEADS, 99, tuple(LayerPlan(layer, (0, 1), (3, 50, 98, 7)[:2]) for layer in (1, 4, 6)))
    importance = importance_of(0, ffn=2, layers=3)
    (found,) = search(importance, [6.0], lambda plan: 1.0, current, ffn_multiple=32)
    assert found.plan.is_stock and {layer.layer for layer in found.plan.layers} < {1, 4, 6}
    assert all(layer.ffn == (3, 50) for layer in found.plan.layers)


def test_uneven_models_are_refused() -> None:
    current = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(0, (0, 1), (1,)), LayerPlan(1, (0, 1), (1, 2))))
    for plan in (current, PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(0, (0,), (1,)),))):
        with pytest.raises(PlanError, match=r"uneven layers already.*structure: free"):
            search(importance_of(0), [9.0], loss_from(0), plan)
    pruned = current_plan(apply_plan(make_pico(), uneven_plan()))
    with pytest.raises(PlanError, match="uneven layers already"):
        search(importance_of(0), [9.0], loss_from(0), pruned)


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_plans_load_with_the_stock_class(family: str, tmp_path: Path) -> None:
    model = make_pico(family)
    plan = current_plan(model)
    importance = importance_of(0, PICO_HEADS, PICO_FFN)
    for errors in (importance.head_errors[0], importance.ffn_errors[0]):
        errors.fill_(0)  # the first layer is the one to go, which no stock config describes where norms come first
    table = macs_table(model.config, plan)
    (found,) = search_stock(
        importance,
        plan,
        table,
        [0.55 * table.of_plan(plan)],
        lambda plan: float(plan.layers[0].layer == 0),  # and the loss would have it so too
        is_stock=lambda plan: not needs_custom_code(model.config, plan),
        ffn_multiple=8,
        steps=24,
        progress=False,
    )
    assert (found.plan.layers[0].layer == 0) is (family == "modernbert")
    pruned = apply_plan(copy.deepcopy(model), found.plan)
    pruned.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(model) and loaded.config.num_hidden_layers == len(found.plan.layers)
    with torch.inference_mode():
        found_scores, scores = (each(**random_inputs(3, 9)).logits for each in (loaded, pruned))
    torch.testing.assert_close(found_scores, scores, rtol=0, atol=1e-6)
