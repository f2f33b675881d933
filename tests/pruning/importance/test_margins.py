"""Token weights: equal to numeric gradients, 0 for padding, and the model is not changed."""

from __future__ import annotations

import pytest
import torch
from conftest import FAMILIES, make_pico, uneven_plan
from ranking_batches import batches_for, model_inputs
from torch import Tensor
from transformers import BertTokenizerFast, PreTrainedModel

from hfcompress.data.ranking import RankingData
from hfcompress.models.architectures import architecture_of, encoder_layers
from hfcompress.models.surgery import apply_plan
from hfcompress.pruning.importance.margins import TokenWeights, margin_gradients


def directions(batches: list[dict[str, Tensor]], seed: int) -> list[Tensor]:
    """v of the docstring: for each list standard normal less its mean, over the square root of its length."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for batch in batches:
        mask = batch["list_mask"]
        rows = []
        for drawn, real in zip(torch.randn(mask.shape, generator=generator), mask, strict=True):
            of_list = drawn[real]
            rows.append((of_list - of_list.mean()) / len(of_list) ** 0.5)
        result.append(torch.cat(rows))
    return result


def squared_gradient(
    model: PreTrainedModel, batch: dict[str, Tensor], direction: Tensor, name: tuple[int, str], pair: int, token: int
) -> float:
    """Mean squared derivative of `v . s` by the output of a module at one token, from central differences."""
    module = encoder_layers(model)[name[0]].get_submodule(name[1])
    step = 1e-4
    change = torch.zeros(model.config.hidden_size, dtype=torch.float64)

    def move(_module: object, _inputs: object, output: Tensor) -> Tensor:
        moved = output.clone()
        moved[pair, token] += change
        return moved

    hook = module.register_forward_hook(move)
    derivatives = []
    with torch.inference_mode():
        for dimension in range(len(change)):
            values = []
            for sign in (1, -1):
                change.zero_()[dimension] = sign * step
                values.append(float(model(**model_inputs(batch)).logits[:, 0] @ direction.double()))
            derivatives.append((values[0] - values[1]) / (2 * step))
    hook.remove()
    return sum(value**2 for value in derivatives) / len(derivatives)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_weights_are_mean_squared_gradients(family: str, word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    model = make_pico(family).double()
    batches = batches_for(family, word_data, tokenizer, 4, per_batch=2, documents=3)
    assert not batches[1]["list_mask"].all()  # lists of different length
    found = margin_gradients(model, batches, seed=3, progress=False).tokens
    direction = directions(batches, 3)[1]
    row = architecture_of(model.config)
    for layer, path, pair, token in (
        (0, row.attention_output, 1, 0),
        (1, row.ffn_out, 4, 2),
        (2, row.ffn_out, 3, 1),
        (3, row.attention_output, 0, 0),
    ):
        expected = squared_gradient(model, batches[1], direction, (layer, path), pair, token)
        assert expected > 0
        assert found[1][layer, path][pair, token].item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_counts_nothing_and_in_the_last_layer_only_the_first_token_counts(
    family: str, word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model = make_pico(family)
    batches = batches_for(family, word_data, tokenizer, 4)
    row = architecture_of(model.config)
    for batch, weights in zip(batches, margin_gradients(model, batches, progress=False).tokens, strict=True):
        padding = ~batch["attention_mask"].bool()
        assert padding.any()
        assert weights.keys() == {(layer, path) for layer in range(4) for path in (row.attention_output, row.ffn_out)}
        for (layer, _), weight in weights.items():
            assert weight.shape == padding.shape and weight.dtype == torch.float32
            assert not weight[padding].any() and (weight >= 0).all()
            assert (weight[:, 0] > 0).all()
            assert bool(weight[:, 1:].any()) is (layer < 3)


def test_a_model_that_reads_the_mean_needs_all_tokens_to_the_end(
    word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model = make_pico("modernbert", classifier_pooling="mean")
    batch, *_ = batches = batches_for("modernbert", word_data, tokenizer, 4)
    last = margin_gradients(model, batches, progress=False).tokens[0][3, "mlp.Wo"]
    assert (last[batch["attention_mask"].bool()] > 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_a_pruned_model(family: str, word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    model = apply_plan(make_pico(family), uneven_plan())
    (weights,) = margin_gradients(model, batches_for(family, word_data, tokenizer, 4), progress=False).tokens
    assert {layer for layer, _ in weights} == {0, 1, 2} and len(weights) == 6
    assert all(weight.any() for weight in weights.values())


def test_the_model_stays_as_it_was(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    model = make_pico().train()
    model.bert.embeddings.requires_grad_(False)
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    margin_gradients(model, batches_for("bert", word_data, tokenizer, 4), progress=False)
    assert model.training and all(module.training for module in model.modules())
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_model_stays_as_it_was_after_an_error(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    model = make_pico().train()
    batches = batches_for("bert", word_data, tokenizer, 4)
    del batches[0]["list_mask"]
    with pytest.raises(KeyError):
        margin_gradients(model, batches, progress=False)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_seeds_decide(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    model, batches = make_pico(), batches_for("bert", word_data, tokenizer, 8)

    def same(one: list[TokenWeights], other: list[TokenWeights]) -> bool:
        return all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)

    first = margin_gradients(model, batches, seed=1, progress=False).tokens
    assert same(first, margin_gradients(model, batches, seed=1, progress=False).tokens)
    assert not same(first, margin_gradients(model, batches, seed=2, progress=False).tokens)
    name = (1, "output.dense")
    assert not torch.allclose(first[0][name].sum(), first[1][name].sum())  # the draws of batches differ


def test_what_moves_all_documents_alike_counts_nothing(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    """A list of one document has no margin."""
    batches = batches_for("bert", word_data, tokenizer, 2, per_batch=1, documents=2)
    for batch in batches:
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            batch[name] = batch[name][:1]
        batch["list_mask"] = batch["list_mask"][:, :1]
    for weights in margin_gradients(make_pico(), batches, progress=False).tokens:
        assert not any(weight.any() for weight in weights.values())


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_directions_are_second_moments_of_the_gradients(
    family: str, word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    """Tokens and directions are two sides of one gradient; a move against all directions costs nothing."""
    model = make_pico(family).double()
    batches = batches_for(family, word_data, tokenizer, 4, per_batch=2, documents=3)
    found = margin_gradients(model, batches, seed=3, progress=False)
    name = (1, architecture_of(model.config).ffn_out)
    module = encoder_layers(model)[1].get_submodule(name[1])
    gradients = []
    for batch, direction in zip(batches, directions(batches, 3), strict=True):
        outputs: list[Tensor] = []
        hook = module.register_forward_hook(lambda _module, _inputs, output, seen=outputs: seen.append(output))
        scores = model(**model_inputs(batch)).logits[:, 0]
        hook.remove()
        (gradient,) = torch.autograd.grad(scores @ direction.double(), outputs)
        gradients.append(gradient[batch["attention_mask"].bool()])
    rows = torch.cat(gradients)
    moment = rows.T @ rows
    expected = moment * len(moment) / moment.trace()
    torch.testing.assert_close(found.directions[name], expected, rtol=1e-3, atol=1e-4)
    assert all(float(matrix.trace()) == pytest.approx(model.config.hidden_size) for matrix in found.directions.values())
    total = sum(float(weights[name].sum()) for weights in found.tokens)
    assert total == pytest.approx(float(moment.trace()) / len(moment), rel=1e-3)
