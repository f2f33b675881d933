"""Mixed precision: what is sensitive stays in fp32, the bound holds on the deployed graph, and figures are kept."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
import torch
from conftest import SIGMOID, WORDS, make_pico, uneven_plan
from torch import nn
from transformers import BertTokenizerFast, PreTrainedModel

import hfcompress
from hfcompress.errors import DataError, RecipeError
from hfcompress.losses import listwise_kl
from hfcompress.models.architectures import encoder_layers
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.layout import ONNX_INT8
from hfcompress.models.surgery import apply_plan
from hfcompress.optimum_config import RankerCompressionConfig
from hfcompress.quantization import onnxruntime as backend
from hfcompress.quantization.artifacts import calibration_batches
from hfcompress.quantization.config import MixedPrecisionConfig, config_from_recipe
from hfcompress.quantization.mixed_precision import choose_fp32_modules, weight_nodes
from hfcompress.rankers.onnxruntime import OnnxRuntimeRanker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import OnnxRuntimeInt8

FRAGILE = "bert.encoder.layer.1.attention.self.value"


def pairs_of(queries: int, documents: int) -> list[tuple[str, str]]:
    rng = random.Random(0)
    texts = [" ".join(rng.sample(WORDS, 3)) for _ in range(queries)]
    return [(query, " ".join(rng.sample(WORDS, rng.randint(3, 20)))) for query in texts for _ in range(documents)]


def fragile_model() -> PreTrainedModel:
    """A model with one weight that 8 bits cannot hold: large values in a column hide those that count."""
    model = make_pico(num_hidden_layers=2)
    weight = model.get_submodule(FRAGILE).weight
    with torch.no_grad():
        weight[:, 0] *= 300
        model.bert.encoder.layer[0].output.LayerNorm.weight[0] = 0.0  # which never count: their input is 0
        model.bert.encoder.layer[0].output.LayerNorm.bias[0] = 0.0
        model.classifier.weight *= 30
    return model


def loss_of(graph: onnx_ir.Model, model: PreTrainedModel, tokenizer: BertTokenizerFast, folder: Path) -> float:
    """The calibration loss, worked out anew: 12 lists of 5."""
    pairs = pairs_of(12, 5)
    path = backend.save_onnx(graph, folder / "again.onnx")
    scores = OnnxRuntimeRanker(path, tokenizer).score(pairs)
    dense = TorchRanker(model, tokenizer).score(pairs)
    after, before = (torch.from_numpy(each).reshape(12, 5) for each in (scores, dense))
    return float(listwise_kl(after, before, torch.ones(12, 5, dtype=torch.bool)).mean())


@pytest.fixture(scope="module")
def fragile(tokenizer: BertTokenizerFast) -> tuple[PreTrainedModel, onnx_ir.Model]:
    model = fragile_model()
    return model, backend.export_onnx(model, tokenizer)


@pytest.mark.parametrize("family", ["bert", "modernbert", pytest.param("deberta-v2", marks=pytest.mark.soak)])
def test_every_linear_layer_is_found_in_the_graph(family: str, tokenizer: BertTokenizerFast) -> None:
    plain = BertTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    plain.model_input_names = ["input_ids", "attention_mask"]
    model = apply_plan(make_pico(family), uneven_plan())
    found = weight_nodes(model, backend.export_onnx(model, plain))
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module in set(encoder_layers(model).modules())
    }
    assert set(found) == set(layers) and len(layers) >= 8
    nodes = [node for names in found.values() for node in names]
    assert len(nodes) == len(set(nodes))


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_what_is_sensitive_stays_in_fp32_and_the_bound_holds(
    mode: str, fragile: tuple[PreTrainedModel, onnx_ir.Model], tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    model, graph = fragile
    pairs = pairs_of(12, 5)
    calibration = calibration_batches(tokenizer, pairs)

    def choose(bound: float) -> tuple[MixedPrecisionConfig, onnx_ir.Model]:
        config = MixedPrecisionConfig(bound, mode, per_channel=True, reduce_range=False)
        return choose_fp32_modules(
            model, tokenizer, graph, config, calibration=calibration, pairs=pairs, progress=False
        )

    loose, int8 = choose(100.0)
    assert loose.fp32_modules == [] and loose.figures["loss"] == loose.figures["loss_int8"]
    assert loose.figures["loss"] == pytest.approx(loss_of(int8, model, tokenizer, tmp_path), rel=1e-3)
    bound = loose.figures["loss_int8"] / 2
    chosen, mixed = choose(bound)
    assert chosen.fp32_modules is not None and chosen.fp32_modules[0] == FRAGILE
    assert len(chosen.fp32_modules) < len(chosen.sensitivity) == chosen.figures["modules"] == 12
    assert max(chosen.sensitivity, key=lambda name: chosen.sensitivity[name]) == FRAGILE
    assert chosen.figures["loss"] <= bound
    assert chosen.figures["loss"] == pytest.approx(loss_of(mixed, model, tokenizer, tmp_path), rel=1e-3)
    kinds = [initializer.dtype for initializer in (value.const_value for value in mixed.graph.initializers.values())]
    in_fp32 = [value for value in mixed.graph.initializers.values() if _is_weight(value)]
    assert len(in_fp32) == len(chosen.fp32_modules) and onnx_ir.DataType.INT8 in kinds
    assert not any("forward" in vars(module) for module in model.modules() if isinstance(module, nn.Linear))


def _is_weight(value: onnx_ir.Value) -> bool:
    """Whether this is the weight of a linear layer of the pico encoder in fp32, as MatMul takes it."""
    users = {node.op_type for node, _ in value.uses()}
    return value.const_value.dtype == onnx_ir.DataType.FLOAT and "MatMul" in users and len(value.const_value.shape) == 2


def test_a_bound_out_of_reach_is_said(
    fragile: tuple[PreTrainedModel, onnx_ir.Model], tokenizer: BertTokenizerFast
) -> None:
    model, graph = fragile
    with pytest.raises(RecipeError, match=r"with all linear layers of the encoder in fp32.*raise max_loss"):
        choose_fp32_modules(
            model,
            tokenizer,
            graph,
            MixedPrecisionConfig(1e-12),
            calibration=[],
            pairs=pairs_of(12, 5),
            progress=False,
        )


def test_the_choice_is_written_down(tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model", fragile_model(), tokenizer, SIGMOID, 32)
    quantizer = hfcompress.RankerQuantizer.from_pretrained(tmp_path / "model")
    with pytest.raises(DataError, match="several documents of each query"):
        quantizer.quantize(tmp_path / "out", MixedPrecisionConfig(), pairs_of(12, 1))
    config = MixedPrecisionConfig(0.02, reduce_range=False)
    quantizer.quantize(tmp_path / "out", config, pairs_of(12, 5), progress=False)
    assert config.fp32_modules is None  # the one given stays as it is
    saved = RankerCompressionConfig.from_pretrained(tmp_path / "out").quantization[ONNX_INT8]
    assert FRAGILE in saved["fp32_modules"] and saved["sensitivity"][FRAGILE] > 0
    assert saved["figures"]["loss"] <= 0.02 < saved["figures"]["loss_int8"]
    assert np.isfinite(hfcompress.load_ranker(tmp_path / "out", "onnxruntime").score(pairs_of(2, 2))).all()


def test_settings() -> None:
    step = OnnxRuntimeInt8(mode="static", max_loss=0.5, calibration="entropy", target="arm64")
    config = config_from_recipe(step)
    assert isinstance(config, MixedPrecisionConfig) and config.precision == "int8-static-mixed"
    assert (config.max_loss, config.calibration, config.activation_type) == (0.5, "entropy", "int8")
    for wrong in (lambda: MixedPrecisionConfig(0.0), lambda: MixedPrecisionConfig(0.1, "mixed")):
        with pytest.raises(RecipeError):
            wrong()
