"""Pruning: gates agree with surgery, checkpoints reload bit-equal in every way there is, plans compose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, FFN, HEADS, LAYERS, make_pico, random_inputs, stock_plan, uneven_plan
from transformers import AutoModelForSequenceClassification, GPT2Config, PreTrainedModel

import hfcompress
from hfcompress.architectures import architecture_of
from hfcompress.errors import ModelError, PlanError
from hfcompress.importance.gates import gated
from hfcompress.plan import LayerPlan, PruningPlan
from hfcompress.surgery import apply_plan, current_plan, encoder_flops


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


@pytest.mark.parametrize("family", FAMILIES)
def test_closed_gates_give_the_scores_of_the_pruned_model(family: str) -> None:
    model = make_pico(family)
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
def test_open_gates_change_nothing_and_leave_nothing_behind(family: str) -> None:
    model = make_pico(family)
    before = logits(model)
    with gated(model):
        assert torch.equal(logits(model), before)
    assert torch.equal(logits(model), before)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_checkpoint_reloads_bit_equal(family: str, tmp_path: Path) -> None:
    model = apply_plan(make_pico(family), uneven_plan())
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
def test_pruning_a_pruned_model_composes_in_the_teachers_numbers(family: str, tmp_path: Path) -> None:
    plan = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(0, (3,), (4, 60)), LayerPlan(3, (0, 3), ())))
    at_once = apply_plan(make_pico(family), plan)
    first = apply_plan(make_pico(family), uneven_plan())
    first.save_pretrained(tmp_path)
    twice = apply_plan(hfcompress.load_model(str(tmp_path)), plan)
    assert current_plan(twice) == plan == current_plan(at_once)
    assert torch.equal(logits(twice), logits(at_once))


def test_pruning_again_cannot_bring_anything_back() -> None:
    model = apply_plan(make_pico(), uneven_plan())
    with pytest.raises(PlanError, match="no longer has"):
        apply_plan(model, PruningPlan.full(LAYERS, HEADS, FFN))


def test_full_plan_changes_nothing() -> None:
    model = make_pico()
    before = logits(model)
    assert torch.equal(logits(apply_plan(model, PruningPlan.full(LAYERS, HEADS, FFN))), before)


def test_bfloat16_survives_pruning_and_reloading(tmp_path: Path) -> None:
    model = apply_plan(make_pico().to(torch.bfloat16), uneven_plan())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    model.save_pretrained(tmp_path)
    reloaded = hfcompress.load_model(str(tmp_path))
    assert torch.equal(logits(reloaded), logits(model))


def test_compiled_and_wrapped_models_are_unwrapped() -> None:
    expected = logits(apply_plan(make_pico(), uneven_plan()))
    pruned = apply_plan(torch.compile(make_pico()), uneven_plan())
    assert torch.equal(logits(pruned), expected)
    assert not any("_orig_mod" in name for name in pruned.state_dict())


def test_training_mode_and_gradients_of_new_modules() -> None:
    model = apply_plan(make_pico().train(), uneven_plan())
    assert all(module.training for module in model.modules())
    model(**random_inputs(2, 9)).logits.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.is_leaf and parameter.requires_grad and parameter.is_contiguous(), name
        # A bias with nothing before it still learns, and nothing points at weights that are gone.
        if parameter.grad is not None:
            assert parameter.grad.shape == parameter.shape
    model = apply_plan(make_pico().eval(), uneven_plan())
    assert not any(module.training for module in model.modules())


def test_multiply_adds_follow_the_plan() -> None:
    model = make_pico()
    full = encoder_flops(model.config, current_plan(model))
    assert full == LAYERS * (4 * 32 * 32 + 2 * 32 * FFN)
    half = PruningPlan(LAYERS, HEADS, FFN, current_plan(model).layers[:2])
    assert encoder_flops(model.config, half) * 2 == full


def test_other_shape_and_other_family_are_refused() -> None:
    with pytest.raises(PlanError, match="another shape"):
        apply_plan(make_pico(), PruningPlan.full(LAYERS, HEADS, FFN + 1))
    with pytest.raises(ModelError, match="bert, distilbert, electra, roberta, xlm-roberta"):
        architecture_of(GPT2Config())


def test_checkpoint_with_missing_weights_is_refused(tmp_path: Path) -> None:
    model = make_pico()
    encoder = model.bert
    encoder.config.architectures = None
    encoder.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"classifier"):
        hfcompress.load_model(str(tmp_path))
