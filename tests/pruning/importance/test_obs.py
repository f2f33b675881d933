"""Least-squares importance of whole models: shapes, true errors, better than unchanged weights, bad input."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch
from conftest import FAMILIES, FAMILIES_AND_VARIANTS, FFN, HEADS, LAYERS, make_pico, uneven_plan
from ranking_batches import FULL, batches_for, hidden_error, model_inputs, random_plan
from torch import Tensor
from transformers import BertTokenizerFast, PreTrainedModel

from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError
from hfcompress.models.architectures import architecture_of, encoder_layers
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import apply_plan, current_plan, pruned_copy
from hfcompress.pruning.importance import obs as obs_module
from hfcompress.pruning.importance.importance import Importance, most_important
from hfcompress.pruning.importance.margins import margin_gradients
from hfcompress.pruning.importance.obs import ALL_DIRECTIONS, obs
from hfcompress.pruning.search.calibration_loss import CalibrationLoss

ALL_HEADS, ALL_NEURONS = tuple(range(HEADS)), tuple(range(FFN))


def plan_without(layer: int, heads: list[int], neurons: list[int]) -> PruningPlan:
    """The full plan without some structures of one layer."""
    layers = list(FULL.layers)
    layers[layer] = LayerPlan(
        layer,
        tuple(head for head in ALL_HEADS if head not in heads),
        tuple(neuron for neuron in ALL_NEURONS if neuron not in neurons),
    )
    return PruningPlan(LAYERS, HEADS, FFN, tuple(layers))


@torch.inference_mode()
def outputs(model: PreTrainedModel, batches: list[dict[str, Tensor]], layer: int, path: str) -> Tensor:
    """Outputs of a module at real tokens, shape `(tokens, hidden)`."""
    seen: list[Tensor] = []
    module = encoder_layers(model)[layer].get_submodule(path)
    hook = module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    for batch in batches:
        model(**model_inputs(batch))
    hook.remove()
    return torch.cat([out[batch["attention_mask"].bool()] for out, batch in zip(seen, batches, strict=True)])


# What is measured


@pytest.mark.parametrize(("family", "changes"), FAMILIES_AND_VARIANTS)
def test_shapes_and_errors(
    family: str, changes: dict[str, object], word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model = make_pico(family, **changes)
    batches = batches_for(family, word_data, tokenizer)
    importance = obs(model, batches, margin_gradients(model, batches, progress=False), progress=False)
    assert importance.method == "obs" and importance.notes == ()
    for scores, errors, count in (
        (importance.heads, importance.head_errors, HEADS),
        (importance.ffn, importance.ffn_errors, FFN),
    ):
        assert [score.shape for score in scores] == [(count,)] * LAYERS
        assert [error.shape for error in errors] == [(count + 1,)] * LAYERS
        for score, error in zip(scores, errors, strict=True):
            assert error[0] == 0 and (error.diff() > 0).all()
            assert len(set(score.tolist())) == count  # an order without ties
            # A score is the error when the head or neuron is removed.
            torch.testing.assert_close(score.sort().values, error[1:], rtol=1e-6, atol=1e-9)


def test_errors_are_those_of_the_outputs(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    """The errors promised are the errors of the updated weights."""
    model, batches = make_pico(), batches_for("bert", word_data, tokenizer, 16)
    importance = obs(model, batches, damping=1e-4, progress=False)
    paths = architecture_of(model.config)
    for layer, heads, neurons, path in ((0, 3, 0, paths.attention_output), (2, 0, 20, paths.ffn_out)):
        # W_O of the first layer sees the same inputs; an FFN does too as long as the attention below it is whole.
        pruned_heads = importance.heads[layer].argsort()[:heads].tolist()
        pruned_neurons = importance.ffn[layer].argsort()[:neurons].tolist()
        plan = plan_without(layer, pruned_heads, pruned_neurons)
        dense = outputs(model, batches, layer, path)
        pruned = outputs(pruned_copy(model, plan, importance.weights(plan)), batches, layer, path)
        share = (dense - pruned).square().sum() / dense.square().sum()
        errors = importance.head_errors if heads else importance.ffn_errors
        assert share.item() == pytest.approx(errors[layer][heads + neurons].item(), rel=2e-2)
        cut = outputs(pruned_copy(model, plan), batches, layer, path)
        assert (dense - cut).square().sum() > 1.2 * (dense - pruned).square().sum()


def test_weighted_errors_are_those_of_the_margins(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    """A list's error is the sum over its tokens of weight times squared error, by direction of the output."""
    model, batches = make_pico(), batches_for("bert", word_data, tokenizer, 16)
    gradients = margin_gradients(model, batches, progress=False)
    importance = obs(model, batches, gradients, damping=1e-4, progress=False)
    path = architecture_of(model.config).ffn_out
    plan = plan_without(1, [], importance.ffn[1].argsort()[:50].tolist())
    dense = outputs(model, batches, 1, path)
    pruned = outputs(pruned_copy(model, plan, importance.weights(plan)), batches, 1, path)
    shares = torch.cat(
        [
            weight[1, path][batch["attention_mask"].bool()]
            for weight, batch in zip(gradients.tokens, batches, strict=True)
        ]
    )
    change = (dense - pruned).double()
    metric = (1 - ALL_DIRECTIONS) * gradients.directions[1, path] + ALL_DIRECTIONS * torch.eye(change.shape[1])
    error = (shares * ((change @ metric) * change).sum(1)).sum() / 16
    assert error.item() == pytest.approx(importance.ffn_errors[1][50].item(), rel=3e-2)


def test_in_the_last_layer_only_what_the_head_reads_counts(
    word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model, batches = make_pico(), batches_for("bert", word_data, tokenizer, 16)
    weights = margin_gradients(model, batches, progress=False)
    path = architecture_of(model.config).ffn_out
    layer = LAYERS - 1
    importances = [obs(model, batches, given, progress=False) for given in (weights, None)]
    first = torch.cat([batch["attention_mask"].bool().nonzero()[:, 1] == 0 for batch in batches])
    errors = []
    for importance in importances:
        plan = plan_without(layer, [], importance.ffn[layer].argsort()[:40].tolist())
        dense = outputs(model, batches, layer, path)
        pruned = outputs(pruned_copy(model, plan, importance.weights(plan)), batches, layer, path)
        errors.append((dense - pruned)[first].square().sum().item())
    assert errors[0] < errors[1]


def test_blocks_save_time_and_change_little(
    word_data: RankingData, tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batches = make_pico(), batches_for("bert", word_data, tokenizer)
    one = obs(model, batches, damping=1e-2, progress=False)
    monkeypatch.setattr(obs_module, "BLOCKS", 16)  # 4 neurons at a time
    four = obs(model, batches, damping=1e-2, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(one.head_errors, four.head_errors, strict=True))  # never in blocks
    for errors, blocks in zip(one.ffn_errors, four.ffn_errors, strict=True):
        assert not torch.equal(errors, blocks)
        assert (blocks[::4] >= errors[::4] * (1 - 1e-6)).all()  # a greedy choice of one at a time is hardly worse
        assert blocks[32] < 1.3 * errors[32]


# Weights


@pytest.mark.parametrize("family", FAMILIES)
def test_where_all_is_kept_there_are_no_new_weights(
    family: str, word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model = make_pico(family)
    importance = obs(model, batches_for(family, word_data, tokenizer), progress=False)
    assert importance.weights(FULL) == {}
    fewer_layers = PruningPlan(LAYERS, HEADS, FFN, FULL.layers[1:3])
    assert importance.weights(fewer_layers) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_named_as_in_the_pruned_model(
    family: str, word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model = make_pico(family)
    row = architecture_of(model.config)
    importance = obs(model, batches_for(family, word_data, tokenizer), progress=False)
    kept = LayerPlan(2, (1, 3), tuple(range(0, FFN, 2)))
    alone = PruningPlan(LAYERS, HEADS, FFN, (kept,))
    behind = PruningPlan(LAYERS, HEADS, FFN, (FULL.layers[0], kept))
    first, second = importance.weights(alone), importance.weights(behind)
    parameters = ("weight",) if family == "modernbert" else ("weight", "bias")
    names = [f"{path}.{name}" for path in (row.attention_output, row.ffn_out) for name in parameters]
    assert first.keys() == {f"{row.layers}.0.{name}" for name in names}
    assert second.keys() == {f"{row.layers}.1.{name}" for name in names}
    assert all(torch.equal(first[f"{row.layers}.0.{name}"], second[f"{row.layers}.1.{name}"]) for name in names)
    state = pruned_copy(model, behind, second).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in second.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_updated_weights_are_better_than_unchanged_ones(
    family: str, word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model = make_pico(family)
    fitted, others = batches_for(family, word_data, tokenizer, 16, per_batch=8)
    importance = obs(model, [fitted], progress=False)
    for seed in range(3):
        plan = random_plan(random.Random(seed), dropped=0.0)
        for batch in (fitted, others):  # also on lists that were not fitted
            assert hidden_error(model, plan, importance.weights(plan), [batch]) < hidden_error(model, plan, {}, [batch])


def test_updated_weights_rank_more_like_the_dense_model_on_average(
    word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    shares = []
    for seed, family in enumerate(("bert", "deberta-v2", "distilbert", "roberta")):
        model = make_pico(family, seed)
        batches = batches_for(family, word_data, tokenizer, 8, per_batch=8, seed=seed)
        importance = obs(model, batches, margin_gradients(model, batches, progress=False), progress=False)
        loss_of = CalibrationLoss(model, batches, importance.weights)
        rng = random.Random(seed)
        shares += [loss_of(plan) / loss_of(plan, {}) for plan in (random_plan(rng) for _ in range(6))]
    assert torch.tensor(shares).log().mean().exp() < 0.9


def test_the_most_important_are_better_than_the_least_important(
    word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    """Keeping the most important of each layer loses less than keeping the least important."""
    for seed in range(3):
        model, batches = make_pico(seed=seed), batches_for("bert", word_data, tokenizer, seed=seed)
        importance = obs(model, batches, progress=False)
        errors = []
        for sign in (1, -1):
            layers = tuple(
                LayerPlan(
                    layer,
                    tuple(most_important(sign * importance.heads[layer], 2)),
                    tuple(most_important(sign * importance.ffn[layer], FFN // 2)),
                )
                for layer in range(LAYERS)
            )
            plan = PruningPlan(LAYERS, HEADS, FFN, layers)
            errors.append(hidden_error(model, plan, importance.weights(plan), batches))
        assert errors[0] < errors[1]


def test_updated_weights_are_cached(
    word_data: RankingData, tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    importance = obs(make_pico(), batches_for("bert", word_data, tokenizer), progress=False)
    plan = plan_without(1, [0], [3])
    first = importance.weights(plan)
    assert len(first) == 4
    again = importance.weights(PruningPlan(LAYERS, HEADS, FFN, plan.layers[1:]))
    assert len(again) == 4
    assert all(tensor is first[name.replace(".layer.0.", ".layer.1.")] for name, tensor in again.items())
    monkeypatch.setattr(obs_module, "CACHED_BYTES", 1)
    importance.weights(plan_without(2, [0], [3]))
    fresh = importance.weights(plan)  # the cache has no room for more than the newest
    assert all(tensor is not first[name] and torch.equal(tensor, first[name]) for name, tensor in fresh.items())


def test_the_model_stays_as_it_was(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    model = make_pico().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    importance = obs(model, batches_for("bert", word_data, tokenizer), progress=False)
    pruned_copy(model, uneven_plan(), importance.weights(uneven_plan()))
    assert model.training and current_plan(model).is_full
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# Models of other shapes and types


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pruned_model_is_pruned_further(family: str, word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    first = uneven_plan()
    model = apply_plan(make_pico(family), first)
    batches = batches_for(family, word_data, tokenizer)
    importance = obs(model, batches, margin_gradients(model, batches, progress=False), progress=False)
    assert [len(values) for values in importance.heads] == [2, 0, 3]
    assert [len(values) for values in importance.ffn] == [FFN // 2, 5, 0]
    assert [len(values) for values in importance.head_errors] == [3, 1, 4]
    assert [len(values) for values in importance.ffn_errors] == [FFN // 2 + 1, 6, 1]
    assert importance.weights(first) == {}
    # In the numbering of the original model, which differs from the indices in this model.
    plan = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(2, (), (1, 4)), LayerPlan(3, (0, 3), ())))
    weights = importance.weights(plan)
    row = architecture_of(model.config)
    assert {name.removeprefix(f"{row.layers}.").rpartition(".")[0] for name in weights} == {
        f"0.{row.ffn_out}",
        f"1.{row.attention_output}",
    }
    student = pruned_copy(model, plan, weights)
    assert current_plan(student) == plan
    with torch.inference_mode():
        assert torch.isfinite(student(**model_inputs(batches[0])).logits).all()


def test_bf16_models(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    batches = batches_for("bert", word_data, tokenizer)
    exact = obs(make_pico(), batches, progress=False)
    model = make_pico().to(torch.bfloat16)
    importance = obs(model, batches, margin_gradients(model, batches, progress=False), progress=False)
    assert all(torch.isfinite(errors).all() for errors in importance.ffn_errors)
    importance = obs(model, batches, progress=False)
    for errors, others in zip(importance.ffn_errors, exact.ffn_errors, strict=True):
        torch.testing.assert_close(errors, others, rtol=0.1, atol=0.02)
    plan = uneven_plan()
    student = pruned_copy(model, plan, importance.weights(plan))
    assert {tensor.dtype for tensor in student.state_dict().values() if tensor.is_floating_point()} == {torch.bfloat16}
    assert hidden_error(model, plan, importance.weights(plan), batches) < hidden_error(model, plan, {}, batches)


# Bad input


@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "all tokens alike"])
@pytest.mark.parametrize(
    ("family", "path"), [("bert", "attention.self.value"), ("bert", "intermediate.dense"), ("modernbert", "mlp.Wi")]
)
def test_a_dead_sublayer_goes_for_nothing(
    family: str, path: str, weighted: bool, word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model, batches = make_pico(family), batches_for(family, word_data, tokenizer)
    with torch.no_grad():
        for parameter in encoder_layers(model)[1].get_submodule(path).parameters():
            parameter.zero_()
    weights = margin_gradients(model, batches, progress=False) if weighted else None
    importance = obs(model, batches, weights, progress=False)
    errors = importance.head_errors if path == "attention.self.value" else importance.ffn_errors
    assert errors[1][-1] < 1e-6 * min(errors[layer][-1] for layer in (0, 2, 3))
    plan = plan_without(1, list(ALL_HEADS[:2]), list(ALL_NEURONS[:32]))
    assert all(torch.isfinite(tensor).all() for tensor in importance.weights(plan).values())


@pytest.mark.parametrize("given", [0.0, 1e-10])
def test_raised_damping_of_a_singular_matrix_is_noted(
    given: float, word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model = make_pico()
    with torch.no_grad():
        layer = model.bert.encoder.layer[1].intermediate.dense
        layer.weight[1:32] = layer.weight[:1]  # 32 identical neurons
        layer.bias[1:32] = layer.bias[:1]
    batches = batches_for("bert", word_data, tokenizer)
    importance = obs(model, batches, damping=given, progress=False)
    assert importance.notes == (f"H of output.dense of layer 1 was singular: damping raised from {given:g} to 1e-06",)
    assert importance.ffn[1].argsort()[:31].max() < 32  # of these one is worth something
    assert obs(model, batches, progress=False).notes == ()


@pytest.mark.parametrize("path", ["attention.output.dense", "output.dense"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "all tokens alike"])
def test_a_sublayer_that_puts_out_nothing_costs_nothing(
    path: str, weighted: bool, word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model, batches = make_pico(), batches_for("bert", word_data, tokenizer)
    with torch.no_grad():
        for parameter in model.bert.encoder.layer[1].get_submodule(path).parameters():
            parameter.zero_()
    weights = margin_gradients(model, batches, progress=False) if weighted else None
    importance = obs(model, batches, weights, progress=False)
    errors = importance.head_errors if path.startswith("attention") else importance.ffn_errors
    assert not errors[1].any() and errors[2].any()


@pytest.mark.parametrize(
    ("name", "sublayer"),
    [
        ("bert.encoder.layer.1.attention.self.query.weight", r"attention\.output\.dense in layer 1"),
        ("bert.encoder.layer.2.intermediate.dense.bias", r"output\.dense in layer 2"),
        ("bert.encoder.layer.0.output.LayerNorm.weight", r"attention\.output\.dense in layer 1"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_named(
    name: str, sublayer: str, value: float, word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model = make_pico()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[0] = value
    with pytest.raises(DataError, match=rf"inputs of {sublayer} are not finite"):
        obs(model, batches_for("bert", word_data, tokenizer), progress=False)


def test_a_broken_head_is_refused_where_tokens_are_weighted(
    word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model, batches = make_pico(), batches_for("bert", word_data, tokenizer)
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    with pytest.raises(DataError):
        obs(model, batches, margin_gradients(model, batches, progress=False), progress=False)


def test_errors_without_weights_are_shares_of_the_output(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    importance = obs(
        make_pico("modernbert"), batches_for("modernbert", word_data, tokenizer), damping=1e-2, progress=False
    )
    for errors in (*importance.head_errors, *importance.ffn_errors):  # without a bias nothing remains in the end
        assert errors[-1].item() == pytest.approx(1, abs=0.02)


def test_too_few_pairs(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    with pytest.raises(DataError, match=r"too few calibration pairs.*prune\.calibration_queries"):
        obs(make_pico(), batches_for("bert", word_data, tokenizer, 1, per_batch=1, documents=2), progress=False)


def test_errors_of_scores_add_up() -> None:
    importance = Importance.additive("by hand", [torch.tensor([3.0, 1.0, 2.0])], [torch.tensor([])])
    assert importance.head_errors[0].tolist() == [0.0, 1.0, 3.0, 6.0]
    assert importance.ffn_errors[0].tolist() == [0.0]
    assert importance.weights(uneven_plan()) == {}
    assert all(before < after for before, after in pairwise(importance.head_errors[0].tolist()))
