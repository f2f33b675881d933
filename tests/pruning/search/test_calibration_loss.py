"""The calibration loss by its definition, and a model that is left as it was."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch
from conftest import FAMILIES, HIDDEN, make_pico, stock_plan, uneven_plan
from ranking_batches import FULL, batches_for, model_inputs, random_plan
from transformers import BertTokenizerFast

from hfcompress.data.ranking import RankingData
from hfcompress.models.architectures import encoder_layers
from hfcompress.models.plan import PruningPlan
from hfcompress.models.surgery import apply_plan
from hfcompress.pruning.importance.importance import unchanged
from hfcompress.pruning.search.calibration_loss import CalibrationLoss


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_models_in_their_lists(
    family: str, word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model = apply_plan(make_pico(family), uneven_plan()).train()
    (batch,) = batches_for(family, word_data, tokenizer, 3)
    scores = CalibrationLoss(model, [batch], unchanged).scores(model)
    assert model.training  # dropout was off for the scores only
    with torch.inference_mode():
        flat = model.eval()(**model_inputs(batch)).logits[:, 0]
    assert batch["list_mask"].sum(1).tolist() == [8, 7, 8]
    expected = torch.zeros(3, 8)
    for row, (start, size) in enumerate(((0, 8), (8, 7), (15, 8))):
        expected[row, :size] = flat[start : start + size]
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


def test_the_loss_is_the_mean_divergence_over_all_lists(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    model, plan = make_pico(), uneven_plan()
    batches = batches_for("bert", word_data, tokenizer, 7)  # batches of 4 and of 3: every list counts the same
    divergences = []
    pruned = apply_plan(make_pico(), plan)
    with torch.inference_mode():
        for batch in batches:
            dense, cut = (each(**model_inputs(batch)).logits[:, 0].double() for each in (model, pruned))
            for size in batch["list_mask"].sum(1).tolist():
                first, second = dense[:size].softmax(0), cut[:size].softmax(0)
                divergences.append(float((first * (first / second).log()).sum()))
                dense, cut = dense[size:], cut[size:]
    assert len(divergences) == 7
    plan_loss = CalibrationLoss(model, batches, unchanged)
    assert plan_loss(plan) == pytest.approx(sum(divergences) / 7, rel=1e-3)
    assert abs(plan_loss(FULL)) < 1e-6 < plan_loss(plan)


def test_weights_come_with_the_plan_unless_others_are_given(
    word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model = make_pico().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    asked: list[PruningPlan] = []

    def inverted(plan: PruningPlan) -> dict[str, torch.Tensor]:
        asked.append(plan)
        return {"classifier.weight": -before["classifier.weight"]}

    plan_loss = CalibrationLoss(model, batches_for("bert", word_data, tokenizer), inverted)
    assert asked == []  # the dense scores need none
    with_its_own, plain = plan_loss(stock_plan()), plan_loss(stock_plan(), {})
    assert asked == [stock_plan()]
    assert plan_loss(stock_plan(), inverted(stock_plan())) == with_its_own != plain
    assert model.training and all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_changes_no_loss(family: str, word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    batches = batches_for(family, word_data, tokenizer)
    plan_loss = CalibrationLoss(make_pico(family), batches, unchanged)
    rng = random.Random(0)
    base = random_plan(rng, dropped=0.0)
    for kept in (FULL, base):
        plans = [kept]
        for index, layer in enumerate(kept.layers):
            others = kept.layers[:index], kept.layers[index + 1 :]
            plans.append(replace(kept, layers=(*others[0], *others[1])))
            plans.append(replace(kept, layers=(*others[0], replace(layer, ffn=layer.ffn[:5]), *others[1])))
        plans += [replace(kept, layers=kept.layers[:count]) for count in (1, 2)]
        plans = [plan for plan in plans if any(layer.heads for layer in plan.layers)]
        plain = [CalibrationLoss(plan_loss.model, batches, unchanged)(plan) for plan in plans]
        plan_loss.cache_layers(kept)
        assert [plan_loss(plan) for plan in plans] == pytest.approx(plain, rel=1e-4, abs=1e-7)
        some = plan_loss.of_queries(3)
        plain = [some(plan) for plan in plans]
        some.cache_layers(kept)
        assert [some(plan) for plan in plans] == pytest.approx(plain, rel=1e-4, abs=1e-7)


def test_an_estimate_is_the_loss_on_some_queries(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    model, plan = make_pico(), uneven_plan()
    lists = batches_for("bert", word_data, tokenizer, 7, per_batch=1)
    plan_loss = CalibrationLoss(model, lists, unchanged)
    whole, estimate = plan_loss(plan), plan_loss.of_queries(3)
    alone = CalibrationLoss(model, lists[::3], unchanged)
    assert len(estimate.mask) == 3
    assert estimate(plan) == pytest.approx(alone(plan), rel=1e-4)
    assert estimate.uniform_loss == pytest.approx(alone.uniform_loss, rel=1e-5)
    assert plan_loss(plan) == whole != estimate(plan)
    assert plan_loss.of_queries(100)(plan) == pytest.approx(
        CalibrationLoss(model, lists[:1], unchanged)(plan), rel=1e-4
    )


@pytest.mark.parametrize(("layers", "kept"), [(0, []), (1, [3]), (2, [2]), (3, [1, 2, 3])])
def test_the_cache_has_a_bound(
    word_data: RankingData, tokenizer: BertTokenizerFast, layers: int, kept: list[int]
) -> None:
    batches = batches_for("bert", word_data, tokenizer)
    plan_loss = CalibrationLoss(make_pico(), batches, unchanged)
    size = 4 * HIDDEN * sum(batch.tensors["input_ids"].numel() for batch in plan_loss._batches)
    bounded = CalibrationLoss(plan_loss.model, batches, unchanged, cache_bytes=layers * size)
    bounded.cache_layers(FULL)
    outputs = [output for batch in bounded._cached_outputs for output in batch.values()]
    assert sum(output.nbytes for output in outputs) <= layers * size
    assert all(list(batch) == kept for batch in bounded._cached_outputs)
    for index, layer in enumerate(FULL.layers):
        plan = replace(FULL, layers=(*FULL.layers[:index], replace(layer, ffn=(1, 2)), *FULL.layers[index + 1 :]))
        assert bounded(plan) == pytest.approx(plan_loss(plan), rel=1e-4, abs=1e-7)


def test_cached_layers_are_not_computed_again(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    model = make_pico()
    plan_loss = CalibrationLoss(model, batches_for("bert", word_data, tokenizer, 4), unchanged)
    plan_loss.cache_layers(FULL)
    last = replace(FULL.layers[-1], ffn=(1, 2))
    plan = replace(FULL, layers=(*FULL.layers[:-1], last))
    expected = plan_loss(plan)
    for layer in encoder_layers(model)[:-1]:
        layer.output.dense.weight.data.fill_(float("nan"))
    assert plan_loss(plan) == expected
    assert math.isnan(plan_loss(plan, {}))  # other weights are not those that were cached
