"""Exports of unevenly pruned models of every family equal PyTorch; int8 graphs run, are smaller and keep the order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import FFN, HEADS, LAYERS, VARIANTS, families, make_pico, random_inputs, uneven_plan
from one_token_graphs import onnx_products_of_one_token, openvino_products_of_one_token
from transformers import BertTokenizerFast, PreTrainedModel

from hfcompress.errors import DataError
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import apply_plan
from hfcompress.quantization import onnxruntime as onnx_backend
from hfcompress.quantization import openvino as openvino_backend
from hfcompress.quantization.config import (
    DynamicQuantizationConfig,
    OpenVINOQuantizationConfig,
    QuantizationConfig,
    StaticQuantizationConfig,
)
from hfcompress.quantization.first_token import reads_first_token_only
from hfcompress.utils.openvino_core import openvino_core

SHAPES = [(1, 17), (7, 2), (7, 17), (2, 512)]  # one pair, several with padding, the shortest, the longest
# Layers dropped, one with nothing left, one uneven in heads and FFN: few, since each costs a second of an export.
TWO_LAYERS = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(0, (), ()), LayerPlan(3, (0, 2, 3), tuple(range(5)))))
# Families with code of their own, of which the others differ in the names of their modules.
QUICK = {"onnxruntime": ("bert", "roberta", "distilbert", "mpnet", "deberta-v2", "modernbert"),
         "openvino": ("bert", "mpnet", "deberta-v2", "modernbert")}  # fmt: skip
LAST_LAYER = 3  # products behind the values: W_O, W_1 and W_2
needs_openvino = pytest.mark.skipif(not openvino_backend.is_available(), reason="the openvino extra is not installed")


def exported(runtime: str) -> list[Any]:
    """Every family and variant."""
    every = [pytest.param(*each.values, {}, id=each.id, marks=each.marks) for each in families(*QUICK[runtime])]
    return every + [pytest.param(*each.values, id=each.id, marks=pytest.mark.soak) for each in VARIANTS]


def tokenizer_for(family: str, tokenizer: BertTokenizerFast) -> BertTokenizerFast:
    """The tokenizer with the inputs that the family takes."""
    copy = BertTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    if family != "bert":
        copy.model_input_names = ["input_ids", "attention_mask"]
    return copy


def inputs_for(batch: int, length: int, names: list[str]) -> dict[str, torch.Tensor]:
    inputs = random_inputs(batch, length)
    if "token_type_ids" in names:
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
        inputs["token_type_ids"][:, length // 2 :] = 1
    return inputs


def expected(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    with torch.inference_mode():
        return model(**inputs).logits.numpy()


def run_onnx(path: Path, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {node.name: inputs[node.name].numpy() for node in session.get_inputs()})[0]


@pytest.mark.parametrize(("family", "changes"), exported("onnxruntime"))
def test_onnx_of_a_pruned_model_equals_torch(
    family: str, changes: dict[str, object], tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    model = apply_plan(make_pico(family, **changes), TWO_LAYERS)
    names = tokenizer_for(family, tokenizer).model_input_names
    graph = onnx_backend.export_onnx(model, tokenizer_for(family, tokenizer))
    one_token = onnx_products_of_one_token(graph)
    assert one_token >= LAST_LAYER if reads_first_token_only(model.config) else not one_token
    path = onnx_backend.save_onnx(graph, tmp_path / "onnx" / "model.onnx")
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]  # one file, no external data
    for batch, length in SHAPES:
        inputs = inputs_for(batch, length, names)
        np.testing.assert_allclose(run_onnx(path, inputs), expected(model, inputs), atol=1e-4)
    axes = [[dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in onnx.load(path).graph.input]
    assert all(row == axes[0] and all(row) and row[0] != row[1] for row in axes), axes


@needs_openvino
@pytest.mark.parametrize(("family", "changes"), exported("openvino"))
def test_openvino_of_a_pruned_model_equals_torch(
    family: str, changes: dict[str, object], tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    model = apply_plan(make_pico(family, **changes), TWO_LAYERS)
    names = tokenizer_for(family, tokenizer).model_input_names
    graph = openvino_backend.export_openvino(model, tokenizer_for(family, tokenizer))
    one_token = openvino_products_of_one_token(graph, inputs_for(7, 17, names))
    assert one_token >= LAST_LAYER if reads_first_token_only(model.config) else not one_token
    path = openvino_backend.save_openvino(graph, tmp_path / "openvino_model.xml")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["openvino_model.bin", "openvino_model.xml"]
    compiled = openvino_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch, length in SHAPES:
        inputs = inputs_for(batch, length, names)
        fed = {node.any_name: inputs[node.any_name].numpy() for node in compiled.inputs}
        np.testing.assert_allclose(compiled(fed)[0], expected(model, inputs), atol=1e-4)


def test_onnxruntime_int8_keeps_the_order(tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    model = apply_plan(make_pico(vocab_size=4000), uneven_plan())
    calibration = [inputs_for(4, length, tokenizer.model_input_names) for length in (5, 17, 30)]
    graph = onnx_backend.export_onnx(model, tokenizer)
    full = onnx_backend.save_onnx(graph, tmp_path / "model.onnx")
    inputs = inputs_for(40, 20, tokenizer.model_input_names)
    reference = expected(model, inputs)[:, 0]
    for config in (
        DynamicQuantizationConfig(),
        DynamicQuantizationConfig(reduce_range=True),
        StaticQuantizationConfig(),
    ):
        path = onnx_backend.save_onnx(
            onnx_backend.quantize(graph, config, calibration), tmp_path / f"{config.mode}.onnx"
        )
        assert path.stat().st_size < 0.6 * full.stat().st_size
        scores = run_onnx(path, inputs)[:, 0]
        assert np.corrcoef(scores, reference)[0, 1] > 0.95
    np.testing.assert_allclose(run_onnx(full, inputs)[:, 0], reference, atol=1e-4)  # the graph given is unchanged


@needs_openvino
def test_openvino_int8_keeps_the_order(tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    model = apply_plan(make_pico(vocab_size=4000), uneven_plan())
    calibration = [inputs_for(4, length, tokenizer.model_input_names) for length in (5, 17, 30)]
    graph = openvino_backend.export_openvino(model, tokenizer)
    size = openvino_backend.save_openvino(graph, tmp_path / "a.xml").with_suffix(".bin").stat().st_size
    path = openvino_backend.save_openvino(
        openvino_backend.quantize(graph, OpenVINOQuantizationConfig(), calibration), tmp_path / "b.xml"
    )
    assert path.with_suffix(".bin").stat().st_size < 0.6 * size
    inputs = inputs_for(40, 20, tokenizer.model_input_names)
    compiled = openvino_core().compile_model(str(path), "CPU")
    scores = compiled({node.any_name: inputs[node.any_name].numpy() for node in compiled.inputs})[0][:, 0]
    assert np.corrcoef(scores, expected(model, inputs)[:, 0])[0, 1] > 0.95


@pytest.mark.parametrize("config", [StaticQuantizationConfig(), OpenVINOQuantizationConfig()])
def test_static_int8_needs_calibration(config: QuantizationConfig) -> None:
    backend = openvino_backend if config.runtime == "openvino" else onnx_backend
    with pytest.raises(DataError, match=r"no calibration pairs.*dynamic int8"):
        backend.quantize(None, config, [])  # type: ignore[arg-type]


def test_graphs_do_not_say_where_they_were_exported(repository: Path) -> None:
    for graph in (repository / "onnx").iterdir():
        content = graph.read_bytes()
        assert b"site-packages" not in content and b"modeling_hfcompress.py" not in content, graph.name
