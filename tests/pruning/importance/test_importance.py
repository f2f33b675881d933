"""Importance: magnitude by its definition, Fisher against gradients taken one by one and against real removal."""

from __future__ import annotations

import pytest
import torch
from conftest import FAMILIES, FFN, HEADS, LAYERS, make_pico, uneven_plan
from transformers import BertTokenizerFast

from hfcompress.data.lists import RankingCollator, training_lists
from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError
from hfcompress.losses import listwise_softmax
from hfcompress.models.surgery import apply_plan
from hfcompress.pruning.importance.gates import gated
from hfcompress.pruning.importance.scores import fisher, magnitude


@pytest.fixture
def batches(word_data: RankingData, tokenizer: BertTokenizerFast) -> list[dict[str, torch.Tensor]]:
    collate = RankingCollator(tokenizer, 32)
    return [collate([row]) for row in training_lists(word_data, 4, 1, seed=0).select(range(6))]


def test_magnitude_is_the_norm_of_a_structures_weights() -> None:
    model = make_pico()
    scores = magnitude(model)
    layer = model.bert.encoder.layer[1]
    rows = slice(2 * 8, 3 * 8)  # head 2 of 4, 8 wide
    value, output = layer.attention.self.value.weight, layer.attention.output.dense.weight
    assert scores.heads[1][2].item() == pytest.approx(
        (value[rows] ** 2).sum().item() + (output[:, rows] ** 2).sum().item()
    )
    first, second = layer.intermediate.dense.weight, layer.output.dense.weight
    assert scores.ffn[1][5].item() == pytest.approx((first[5] ** 2).sum().item() + (second[:, 5] ** 2).sum().item())


def test_magnitude_of_fused_projections_counts_values_and_both_rows_of_a_gated_neuron() -> None:
    model = make_pico("modernbert")
    scores = magnitude(model)
    layer = model.model.layers[1]
    _, _, value = layer.attn.Wqkv.weight.chunk(3)
    rows = slice(2 * 8, 3 * 8)  # head 2 of 4, 8 wide
    expected = (value[rows] ** 2).sum() + (layer.attn.Wo.weight[:, rows] ** 2).sum()
    assert scores.heads[1][2].item() == pytest.approx(expected.item())
    first, gate = layer.mlp.Wi.weight.chunk(2)
    expected = (first[5] ** 2).sum() + (gate[5] ** 2).sum() + (layer.mlp.Wo.weight[:, 5] ** 2).sum()
    assert scores.ffn[1][5].item() == pytest.approx(expected.item())


def test_fisher_is_the_mean_squared_gradient_of_each_query(batches: list[dict[str, torch.Tensor]]) -> None:
    model = make_pico()
    scores = fisher(model, batches, progress=False)
    expected = torch.zeros(HEADS)
    step = 1e-2
    for batch in batches:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        for head in range(HEADS):
            values = []
            for sign in (1, -1):
                with gated(model) as gates, torch.inference_mode():
                    gates.heads[2][head] += sign * step
                    values.append(
                        listwise_softmax(model(**inputs).logits.T, batch["labels"], batch["list_mask"]).item()
                    )
            expected[head] += ((values[0] - values[1]) / (2 * step)) ** 2
    torch.testing.assert_close(scores.heads[2], expected / len(batches), rtol=0.05, atol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["magnitude", "fisher"])
def test_shapes_follow_a_pruned_model(
    family: str, method: str, word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model = apply_plan(make_pico(family), uneven_plan())
    collate = RankingCollator(tokenizer, 32)
    rows = training_lists(word_data, 4, 1, seed=0).select(range(2))
    batches = [{name: value for name, value in collate([row]).items() if name != "token_type_ids"} for row in rows]
    scores = magnitude(model) if method == "magnitude" else fisher(model, batches, progress=False)
    assert [len(values) for values in scores.heads] == [2, 0, 3]
    assert [len(values) for values in scores.ffn] == [FFN // 2, 5, 0]
    assert all((values >= 0).all() for values in [*scores.heads, *scores.ffn])


def test_fisher_leaves_the_model_as_it_was(batches: list[dict[str, torch.Tensor]]) -> None:
    model = make_pico().train()
    model.bert.embeddings.requires_grad_(False)
    fisher(model, batches[:1], progress=False)
    assert model.training
    assert not model.bert.embeddings.word_embeddings.weight.requires_grad
    assert model.classifier.weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_fisher_refuses_nothing_and_what_is_not_finite(batches: list[dict[str, torch.Tensor]]) -> None:
    with pytest.raises(DataError, match="no calibration queries"):
        fisher(make_pico(), [], progress=False)
    broken = make_pico()
    with torch.no_grad():
        broken.classifier.weight.fill_(float("nan"))
    with pytest.raises(DataError, match="not finite"):
        fisher(broken, batches[:1], progress=False)


def test_as_many_scores_as_structures() -> None:
    scores = magnitude(make_pico())
    assert [len(values) for values in scores.heads] == [HEADS] * LAYERS
    assert [len(values) for values in scores.ffn] == [FFN] * LAYERS
