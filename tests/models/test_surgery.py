"""Surgery: gates agree with it, checkpoints reload bit-equal by every loader, plans compose."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import (
    FAMILIES,
    FAMILIES_AND_VARIANTS,
    FFN,
    HEADS,
    HIDDEN,
    LAYERS,
    front_plan,
    make_pico,
    random_inputs,
    stock_plan,
    uneven_plan,
)
from transformers import AutoModelForSequenceClassification, GPT2Config, PreTrainedModel

import hfcompress
from hfcompress.errors import ModelError, PlanError
from hfcompress.models.architectures import ARCHITECTURES, architecture_of, encoder_layers, head_size, projection
from hfcompress.models.macs import encoder_macs
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import apply_plan, current_plan, pruned_copy
from hfcompress.pruning.importance.gates import gated


def logits(model: PreTrainedModel, batch: int = 4, length: int = 17) -> torch.Tensor:
    with torch.inference_mode():
        return model(**random_inputs(batch, length)).logits


def close_gates(gates, plan: PruningPlan) -> None:
    kept = {layer.layer: layer for layer in plan.layers}
    for layer in range(LAYERS):
        for gate, numbers in (
            (gates.heads[layer], kept[layer].heads if layer in kept else ()),
            (gates.ffn[layer], kept[layer].ffn if layer in kept else ()),
        ):
            gate.zero_()
            gate[list(numbers)] = 1


def full_layer(number: int) -> LayerPlan:
    return LayerPlan(number, tuple(range(HEADS)), tuple(range(FFN)))


@pytest.mark.parametrize(("family", "changes"), FAMILIES_AND_VARIANTS)
def test_closed_gates_give_the_scores_of_the_pruned_model(family: str, changes: dict[str, object]) -> None:
    model = make_pico(family, **changes)
    layers = tuple(
        LayerPlan(layer, heads, ffn)
        for layer, heads, ffn in ((0, (1, 3), tuple(range(9))), (1, (), (2, 7)), (2, (0,), ()), (3, (2, 3), (1,)))
    )
    plan = PruningPlan(LAYERS, HEADS, FFN, layers)
    with gated(model) as gates:
        close_gates(gates, plan)
        expected = logits(model)
    assert not torch.allclose(expected, logits(model), atol=1e-3)  # the plan changes something
    torch.testing.assert_close(logits(apply_plan(model, plan)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_open_gates_change_nothing_and_are_removed(family: str) -> None:
    model = make_pico(family)
    before = logits(model)
    with gated(model):
        assert torch.equal(logits(model), before)
    assert torch.equal(logits(model), before)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("plan", [uneven_plan(), front_plan()], ids=["uneven", "another-layer-in-front"])
@pytest.mark.parametrize(("family", "changes"), FAMILIES_AND_VARIANTS)
def test_pruned_checkpoint_reloads_bit_equal(
    family: str, changes: dict[str, object], plan: PruningPlan, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = apply_plan(make_pico(family, dtype=dtype, **changes), plan)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    expected = logits(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(hfcompress.load_model(str(tmp_path))), expected)
    remote = AutoModelForSequenceClassification.from_pretrained(tmp_path, trust_remote_code=True).eval()
    assert type(remote).__module__.startswith("transformers_modules")
    assert torch.equal(logits(remote), expected)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == family
    assert config["architectures"][0].endswith("ForSequenceClassification")
    assert not any(str(tmp_path.parent) in str(value) for value in config.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_saving_what_remote_code_loaded_gives_the_same_checkpoint(family: str, tmp_path: Path) -> None:
    model = apply_plan(make_pico(family), uneven_plan())
    model.save_pretrained(tmp_path / "first")
    remote = AutoModelForSequenceClassification.from_pretrained(tmp_path / "first", trust_remote_code=True)
    remote.save_pretrained(tmp_path / "second")
    assert torch.equal(logits(hfcompress.load_model(str(tmp_path / "second"))), logits(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_plan_needs_no_custom_code(family: str, tmp_path: Path) -> None:
    model = apply_plan(make_pico(family), stock_plan())
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())
    assert torch.equal(logits(hfcompress.load_model(str(tmp_path))), logits(model))
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(stock).__module__.startswith("transformers.models.")
    for name, tensor in model.state_dict().items():
        assert torch.equal(stock.state_dict()[name], tensor), name
    torch.testing.assert_close(logits(stock), logits(model), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_pruning_a_pruned_model_composes_in_indices_of_the_original_model(family: str, tmp_path: Path) -> None:
    plan = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(0, (3,), (4, 60)), LayerPlan(3, (0, 3), ())))
    at_once = apply_plan(make_pico(family), plan)
    first = apply_plan(make_pico(family), uneven_plan())
    first.save_pretrained(tmp_path)
    remote = AutoModelForSequenceClassification.from_pretrained(tmp_path, trust_remote_code=True).eval()
    for model in (first, hfcompress.load_model(str(tmp_path)), remote):
        twice = apply_plan(model, plan)
        assert current_plan(twice) == plan == current_plan(at_once)
        assert torch.equal(logits(twice), logits(at_once))


def test_pruning_again_cannot_restore_anything() -> None:
    model = apply_plan(make_pico(), uneven_plan())
    with pytest.raises(PlanError, match="no longer has"):
        apply_plan(model, PruningPlan.full(LAYERS, HEADS, FFN))


def test_full_plan_changes_nothing() -> None:
    model = make_pico()
    before = logits(model)
    assert torch.equal(logits(apply_plan(model, PruningPlan.full(LAYERS, HEADS, FFN))), before)


def test_a_model_that_is_even_again_needs_no_custom_code(tmp_path: Path) -> None:
    layers = (full_layer(0), LayerPlan(1, tuple(range(HEADS)), (1, 2, 3)))
    apply_plan(make_pico(), PruningPlan(LAYERS, HEADS, FFN, layers)).save_pretrained(tmp_path / "uneven")
    uneven = hfcompress.load_model(str(tmp_path / "uneven"))
    even = apply_plan(uneven, PruningPlan(LAYERS, HEADS, FFN, layers[:1]))
    even.save_pretrained(tmp_path / "even")
    assert type(even).__name__ == "BertForSequenceClassification"
    assert sorted(path.name for path in (tmp_path / "even").iterdir()) == ["config.json", "model.safetensors"]
    assert "auto_map" not in json.loads((tmp_path / "even" / "config.json").read_text())
    assert torch.equal(logits(hfcompress.load_model(str(tmp_path / "even"))), logits(even))


def test_layers_of_modernbert_keep_their_kind_of_attention(tmp_path: Path) -> None:
    model = make_pico("modernbert")
    kinds = model.config.layer_types
    assert kinds == ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    model = apply_plan(model, PruningPlan(LAYERS, HEADS, FFN, (full_layer(0), full_layer(2), full_layer(3))))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["layer_types"] == [kinds[0], kinds[2], kinds[3]]
    assert config["global_attn_every_n_layers"] == 2
    for loaded in (model, AutoModelForSequenceClassification.from_pretrained(tmp_path)):
        assert [layer.attention_type for layer in loaded.model.layers] == config["layer_types"]
        assert [layer.attn.sliding_window for layer in loaded.model.layers] == [None, 5, None]
        assert [layer.attn.layer_idx for layer in loaded.model.layers] == [0, 1, 2]
    # No period describes full attention in the last layer alone: readers that need a period must stop.
    last = apply_plan(make_pico("modernbert"), PruningPlan(LAYERS, HEADS, FFN, (full_layer(2), full_layer(3))))
    assert last.config.global_attn_every_n_layers is None


def test_modernbert_without_its_first_layer_needs_custom_code_for_the_norm_in_front(tmp_path: Path) -> None:
    plan = PruningPlan(LAYERS, HEADS, FFN, (full_layer(1), full_layer(2)))
    norm = make_pico("modernbert", seed=3).model.layers[1].attn_norm.weight
    pruned = apply_plan(make_pico("modernbert", seed=3), plan)
    assert type(pruned).__name__ == "PrunedModernBertForSequenceClassification"
    assert torch.equal(pruned.model.layers[0].attn_norm.weight, norm)
    assert type(apply_plan(make_pico(), plan)).__name__ == "BertForSequenceClassification"
    # All shapes would fit the stock class, which has no norm there; it has to refuse the checkpoint.
    pruned.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatched_sizes"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(logits(hfcompress.load_model(str(tmp_path))), logits(pruned))
    again = apply_plan(pruned, PruningPlan(LAYERS, HEADS, FFN, (full_layer(2),)))
    assert torch.equal(logits(again), logits(apply_plan(make_pico("modernbert", seed=3), current_plan(again))))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_of_the_layers_gets_a_gradient(family: str) -> None:
    for plan in (uneven_plan(), front_plan()):
        model = apply_plan(make_pico(family), plan)
        model(**random_inputs(4, 17)).logits.sum().backward()
        layers = encoder_layers(model).named_parameters()
        assert not [name for name, parameter in layers if parameter.grad is None]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_is_pruned_and_shares_what_is_unchanged(family: str) -> None:
    model = make_pico(family)
    before, config, names = logits(model), copy.deepcopy(model.config.to_dict()), set(model.state_dict())
    weights = {
        f"{architecture_of(model.config).layers}.0.{ARCHITECTURES[family].ffn_out}.weight": torch.ones(HIDDEN, 32)
    }
    pruned = pruned_copy(model, uneven_plan(), weights)
    assert torch.equal(logits(pruned), logits(apply_plan(make_pico(family), uneven_plan(), weights)))
    assert torch.equal(logits(model), before)
    assert not torch.equal(logits(pruned), before)
    assert type(model).__module__.startswith("transformers.models.")
    assert model.config.to_dict() == config and set(model.state_dict()) == names
    embeddings = (each.get_input_embeddings().weight for each in (model, pruned))
    assert len({weight.data_ptr() for weight in embeddings}) == 1
    pruned.half().requires_grad_(False)
    assert model.dtype == torch.float32 and all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_shares_the_layers_that_keep_everything(family: str) -> None:
    model = make_pico(family)
    before = logits(model)
    whole = pruned_copy(model, current_plan(model))
    weights, copied = (dict(each.named_parameters()) for each in (model, whole))
    assert all(weights[name].data_ptr() == copied[name].data_ptr() for name in weights)
    assert torch.equal(logits(whole), before)
    apply_plan(whole, uneven_plan())
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize(("family", "changes"), FAMILIES_AND_VARIANTS)
def test_a_copy_may_use_layers_of_an_earlier_one(family: str, changes: dict[str, object]) -> None:
    model = make_pico(family, **changes)
    earlier = pruned_copy(model, uneven_plan())
    before = logits(earlier)
    layers = dict(zip(uneven_plan().layers, encoder_layers(earlier), strict=True))
    first, second, third = uneven_plan().layers
    others = (first, LayerPlan(1, (0, 2), (3, 4)), second, third), (second, third), (first, LayerPlan(2, (), (8,)))
    for plan in (replace(uneven_plan(), layers=other) for other in others):
        expected, found = pruned_copy(model, plan), pruned_copy(model, plan, layers=layers)
        for layer, module in zip(plan.layers, encoder_layers(found), strict=True):
            assert (module is layers.get(layer)) is (layer in layers)
        assert current_plan(found) == plan and type(found) is type(expected)
        state = found.state_dict()
        assert set(state) == set(expected.state_dict())
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.state_dict().items())
        assert torch.equal(logits(found), logits(expected))
        assert torch.equal(logits(earlier), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_replacement_weights_are_used(family: str) -> None:
    row = ARCHITECTURES[family]
    names = [f"{row.layers}.{layer}.{path}.weight" for layer, path in ((0, row.attention_output), (1, row.ffn_out))]
    shapes = [(HIDDEN, 2 * HIDDEN // HEADS), (HIDDEN, 5)]
    weights = {name: torch.randn(shape, dtype=torch.float64) for name, shape in zip(names, shapes, strict=True)}
    model = apply_plan(make_pico(family), uneven_plan(), weights)
    state, plain = model.state_dict(), apply_plan(make_pico(family), uneven_plan()).state_dict()
    for name in names:
        assert torch.equal(state[name], weights[name].float())
    assert all(torch.equal(state[name], plain[name]) for name in plain if name not in names)
    # The tensors are copied.
    weight = weights[names[0]].float()
    own = apply_plan(make_pico(family), uneven_plan(), {names[0]: weight})
    assert own.state_dict()[names[0]].data_ptr() != weight.data_ptr()


def test_replacement_weights_that_do_not_fit_are_refused_before_any_edit() -> None:
    model = make_pico()
    before = logits(model)
    name = "bert.encoder.layer.{}.attention.output.dense.weight"
    for weights, message in (
        ({name.format(3): torch.zeros(HIDDEN, 16)}, "does not have"),  # the index of the last layer before pruning
        ({name.format(0): torch.zeros(HIDDEN, HIDDEN)}, r"shape \(32, 16\)"),
    ):
        with pytest.raises(PlanError, match=message):
            apply_plan(model, uneven_plan(), weights)
    assert torch.equal(logits(model), before) and current_plan(model).is_full


def test_layers_that_share_weights_are_pruned_separately(tmp_path: Path) -> None:
    shared, apart = make_pico(), make_pico()
    layers = shared.bert.encoder.layer
    layers[1].output.dense.weight = layers[0].output.dense.weight
    layers[3].attention.output = layers[2].attention.output
    apart.load_state_dict(shared.state_dict())
    plan = PruningPlan(LAYERS, HEADS, FFN, tuple(LayerPlan(layer, (layer,), (layer, 9)) for layer in range(LAYERS)))
    model = apply_plan(shared, plan)
    assert torch.equal(logits(model), logits(apply_plan(apart, plan)))
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(hfcompress.load_model(str(tmp_path))), logits(model))


def test_weights_that_are_views_are_pruned_and_saved_correctly(tmp_path: Path) -> None:
    model = make_pico()
    for module in (model.bert.encoder.layer[0].output.dense, model.bert.encoder.layer[3].attention.self.query):
        module.weight = torch.nn.Parameter(module.weight.detach().T.contiguous().T)
    model.bert.pooler.dense.weight = torch.nn.Parameter(model.bert.pooler.dense.weight.detach().T.contiguous().T)
    assert not model.bert.pooler.dense.weight.is_contiguous()
    model = apply_plan(model, uneven_plan())
    state = apply_plan(make_pico(), uneven_plan()).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    model.save_pretrained(tmp_path)
    loaded = hfcompress.load_model(str(tmp_path)).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in state.items())


@pytest.mark.parametrize("compile_in_place", [True, False])
def test_compiled_models_are_unwrapped(compile_in_place: bool) -> None:
    expected = logits(apply_plan(make_pico(), uneven_plan()))
    model = make_pico()
    if compile_in_place:
        model.compile(backend="eager")
        compiled = model
    else:
        compiled = torch.compile(model, backend="eager")
    logits(compiled)
    pruned = apply_plan(compiled, uneven_plan())
    assert torch.equal(logits(pruned), expected)
    assert not any("_orig_mod" in name for name in pruned.state_dict())


def test_unpruned_tensors_stay_the_same_parameters() -> None:
    model = make_pico()
    model.classifier.twin = model.bert.pooler.dense.weight
    kept = {name: parameter for name, parameter in model.named_parameters() if ".layer." not in name}
    norm = model.bert.encoder.layer[2].output.LayerNorm.weight
    model = apply_plan(model, uneven_plan())
    assert all(model.get_parameter(name) is parameter for name, parameter in kept.items())
    assert model.bert.encoder.layer[1].output.LayerNorm.weight is norm
    assert model.classifier.twin is model.bert.pooler.dense.weight


def test_frozen_parameters_stay_frozen() -> None:
    model = make_pico()
    model.bert.encoder.layer[0].requires_grad_(False)
    model = apply_plan(model, uneven_plan())
    assert not any(parameter.requires_grad for parameter in model.bert.encoder.layer[0].parameters())
    assert all(parameter.requires_grad for parameter in model.bert.encoder.layer[1].parameters())


def test_training_mode_and_gradients_of_new_modules() -> None:
    model = apply_plan(make_pico().train(), uneven_plan())
    assert all(module.training for module in model.modules())
    model(**random_inputs(2, 9)).logits.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.is_leaf and parameter.requires_grad and parameter.is_contiguous(), name
        # The bias of an empty sublayer still gets a gradient, and no gradient has the shape of pruned weights.
        if parameter.grad is not None:
            assert parameter.grad.shape == parameter.shape
    model = apply_plan(make_pico().eval(), uneven_plan())
    assert not any(module.training for module in model.modules())


def test_macs_follow_the_plan() -> None:
    model = make_pico()
    full = encoder_macs(model.config, current_plan(model))
    assert full == LAYERS * (4 * 32 * 32 + 2 * 32 * FFN)
    half = PruningPlan(LAYERS, HEADS, FFN, current_plan(model).layers[:2])
    assert encoder_macs(model.config, half) * 2 == full
    for family in FAMILIES:
        model = apply_plan(make_pico(family), uneven_plan())
        linears = [
            module for layer in encoder_layers(model) for module in layer.modules() if hasattr(module, "in_features")
        ]
        assert encoder_macs(model.config, uneven_plan()) == sum(module.weight.numel() for module in linears), family


def test_a_head_dim_in_the_config_that_the_class_does_not_read_changes_nothing() -> None:
    model = make_pico(head_dim=16)
    assert head_size(model.config) == HIDDEN // HEADS
    pruned = apply_plan(model, uneven_plan())
    output = projection(pruned.bert.encoder.layer[0], ARCHITECTURES["bert"].attention_output)
    assert output is not None and output.in_features == 2 * HIDDEN // HEADS


def test_other_shape_and_other_family_are_refused() -> None:
    with pytest.raises(PlanError, match="another shape"):
        apply_plan(make_pico(), PruningPlan.full(LAYERS, HEADS, FFN + 1))
    with pytest.raises(ModelError, match=", ".join(FAMILIES)):
        architecture_of(GPT2Config())


def test_checkpoint_with_missing_weights_is_refused(tmp_path: Path) -> None:
    model = make_pico()
    encoder = model.bert
    encoder.config.architectures = None
    encoder.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"classifier"):
        hfcompress.load_model(str(tmp_path))
