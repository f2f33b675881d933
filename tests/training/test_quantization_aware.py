"""Quantization-aware training: rounding as the runtime rounds, straight-through gradients, and a model left plain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from conftest import make_pico, random_inputs, stock_plan
from datasets import Dataset
from onnx import TensorProto, helper
from torch import Tensor, nn
from transformers import BertTokenizerFast, PreTrainedModel, Trainer, TrainingArguments

from hfcompress import GradualPruningCallback, QuantizationAwareCallback
from hfcompress.errors import RecipeError
from hfcompress.models.architectures import encoder_layers
from hfcompress.models.packing import Codec, round_trip
from hfcompress.models.surgery import current_plan
from hfcompress.quantization.config import DynamicQuantizationConfig, WeightQuantizationConfig
from hfcompress.quantization.onnxruntime import export_onnx, quantize
from hfcompress.quantization.rounding import rounded_input, rounded_weight
from hfcompress.quantization.weights import packed_modules, straight_through


def trainer_of(model: PreTrainedModel, pairs: Dataset, folder: Path, *callbacks: Any, **settings: Any) -> Trainer:
    fixed = {"save_strategy": "no", "per_device_train_batch_size": 8, "learning_rate": 1e-3, "max_steps": 10}
    arguments = TrainingArguments(
        output_dir=str(folder), report_to=[], use_cpu=True, disable_tqdm=True, **{**fixed, **settings}
    )
    return Trainer(model=model, args=arguments, train_dataset=pairs, eval_dataset=pairs, callbacks=list(callbacks))


def linears(model: PreTrainedModel) -> list[nn.Linear]:
    return [module for layer in encoder_layers(model) for module in layer.modules() if isinstance(module, nn.Linear)]


@pytest.fixture(scope="module")
def exported(tokenizer: BertTokenizerFast) -> onnx_ir.Model:
    return export_onnx(make_pico(num_hidden_layers=2), tokenizer)


@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_are_rounded_as_onnx_runtime_rounds_them(
    exported: onnx_ir.Model, per_channel: bool, reduce_range: bool
) -> None:
    model = make_pico(num_hidden_layers=2)
    graph = quantize(exported, DynamicQuantizationConfig(per_channel, reduce_range))
    constants = {name: value.const_value for name, value in graph.graph.initializers.items()}
    found = []
    for name, tensor in constants.items():
        if name.endswith("_quantized") and "embeddings" not in name:
            stem = name.removesuffix("_quantized")
            scale, zero = (constants[f"{stem}_{part}"].numpy() for part in ("scale", "zero_point"))
            assert not zero.any()
            found.append(torch.tensor(tensor.numpy().astype(np.float32) * scale))
    for module in linears(model):
        weight = rounded_weight(module.weight, per_channel, 64 if reduce_range else 127).detach()
        same = [each for each in found if each.shape == weight.T.shape and torch.allclose(each, weight.T, atol=1e-6)]
        assert same and not torch.allclose(weight, module.weight, atol=1e-6)


def test_inputs_are_rounded_as_onnx_runtime_rounds_them() -> None:
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"])
    back = helper.make_node("DequantizeLinear", ["y", "scale", "zero"], ["z"])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node, back], "g", [value("x", TensorProto.FLOAT, [None, None])], [value("z", TensorProto.FLOAT, [None, None])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for shift in (0.0, 1.0, -3.0, 20.0):
        inputs = shift + torch.randn(40, 30, generator=generator)
        (expected,) = session.run(None, {"x": inputs.numpy()})
        torch.testing.assert_close(rounded_input(inputs), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_rounding_passes_gradients_through() -> None:
    generator = torch.Generator().manual_seed(0)
    values, factors = (torch.randn(6, 8, generator=generator) for _ in range(2))
    values.requires_grad_(True)
    for found in (rounded_weight(values), rounded_weight(values, False, 64), rounded_input(values)):
        assert not torch.equal(found, values)
        assert found.unique().numel() <= 256 or found is not values
        (gradient,) = torch.autograd.grad((found * factors).sum(), values)
        torch.testing.assert_close(gradient, factors)
    beyond = rounded_input(values, (-0.5, 0.5))
    assert beyond.abs().max() <= 0.51
    (gradient,) = torch.autograd.grad((beyond * factors).sum(), values)
    assert torch.equal(gradient[values.abs() > 0.51], torch.zeros(int((values.abs() > 0.51).sum())))


@pytest.mark.parametrize("values", [torch.zeros(3, 4), torch.full((3, 4), 2.0), torch.full((3, 4), -2.0)])
def test_constant_inputs_and_weights_stay_what_they_are(values: Tensor) -> None:
    torch.testing.assert_close(rounded_input(values), values)
    torch.testing.assert_close(rounded_weight(values), values)


@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_training_is_rounded_from_the_beginning_asked_for(pairs: Dataset, activations: str, tmp_path: Path) -> None:
    losses, models = [], []
    for callbacks in ([], [QuantizationAwareCallback(0.5, activations)], [QuantizationAwareCallback(0.0, activations)]):  # type: ignore[arg-type]
        model = make_pico(problem_type="regression")
        trainer = trainer_of(model, pairs, tmp_path, *callbacks, logging_steps=1)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        models.append(model)
    plain, half, whole = losses
    assert len(plain) == 10 and half[:5] == plain[:5] and half[5] != plain[5] and whole[0] != plain[0]
    assert whole == pytest.approx(plain, rel=0.2)  # rounding is small
    keys = [set(model.state_dict()) for model in models]
    assert keys[0] == keys[1] == keys[2]
    assert not any("forward" in vars(module) for module in linears(models[1]))


def test_evaluations_are_those_of_the_rounded_model(pairs: Dataset, tmp_path: Path) -> None:
    model = make_pico(problem_type="regression")
    callback = QuantizationAwareCallback(0.99)
    trainer = trainer_of(model, pairs, tmp_path, callback)
    plain = trainer.evaluate()["eval_loss"]
    callback.on_train_begin(trainer.args, trainer.state, trainer.control, model=model)
    assert trainer.evaluate()["eval_loss"] != plain
    for module in linears(model):
        module.weight.data = rounded_weight(module.weight.data)
    callback.on_train_end(trainer.args, trainer.state, trainer.control)
    assert trainer.evaluate()["eval_loss"] != plain


@pytest.mark.parametrize("config", [WeightQuantizationConfig("sign"), WeightQuantizationConfig(bits=4, scope="all")])
def test_training_for_packed_weights(pairs: Dataset, config: WeightQuantizationConfig, tmp_path: Path) -> None:
    losses, models = [], []
    for callbacks in ([], [QuantizationAwareCallback(0.5, weights=config)]):
        model = make_pico(problem_type="regression")
        trainer = trainer_of(model, pairs, tmp_path, *callbacks, logging_steps=1)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        models.append(model)
    assert losses[0][:5] == losses[1][:5] and losses[0][5] != losses[1][5]
    packed = packed_modules(models[1], config.scope).values()
    assert all(not torch.equal(round_trip(module.weight, config.codec), module.weight) for module in packed)
    assert not any("forward" in vars(module) for module in models[1].modules())
    # An evaluation is that of the file to come, to the bit.
    callback = QuantizationAwareCallback(0.99, weights=config)
    trainer = trainer_of(models[1], pairs, tmp_path, callback)
    callback.on_train_begin(trainer.args, trainer.state, trainer.control, model=models[1])
    models[1].eval()
    inputs = random_inputs(3, 9)
    with torch.no_grad():
        found = models[1](**inputs).logits
        callback.on_train_end(trainer.args, trainer.state, trainer.control)
        assert not torch.equal(models[1](**inputs).logits, found)
        for module in packed:
            module.weight.data = round_trip(module.weight.data, config.codec)
        assert torch.equal(models[1](**inputs).logits, found)


def test_the_gradient_of_packed_weights_is_that_of_the_weights() -> None:
    weight, factors = (torch.randn(6, 8, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    weight.requires_grad_(True)
    for codec in (Codec("round", 4, 3), Codec("sign", 1)):
        found = straight_through(weight, codec)
        assert torch.equal(found, round_trip(weight, codec)) and not torch.equal(found, weight)
        (gradient,) = torch.autograd.grad((found * factors).sum(), weight)
        assert torch.equal(gradient, factors)


@pytest.mark.parametrize("first", ["rounding", pytest.param("pruning", marks=pytest.mark.soak)])
def test_with_gradual_pruning(pairs: Dataset, tokenizer: BertTokenizerFast, first: str, tmp_path: Path) -> None:
    model = make_pico(problem_type="regression")
    callbacks = [QuantizationAwareCallback(0.6), GradualPruningCallback(stock_plan())]
    trainer_of(model, pairs, tmp_path, *callbacks[:: 1 if first == "rounding" else -1]).train()
    assert current_plan(model) == stock_plan()
    assert not any("forward" in vars(module) for module in linears(model))
    assert isinstance(export_onnx(model, tokenizer), onnx_ir.Model)


@pytest.mark.parametrize("begin", [-0.1, 1.0, 2.0])
def test_a_beginning_that_is_none_is_refused(begin: float) -> None:
    with pytest.raises(RecipeError, match=rf"{begin}.*from 0 to less than 1"):
        QuantizationAwareCallback(begin)
