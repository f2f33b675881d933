"""Graphs of older opsets compute the same; inputs and activations are added; a graph of another model is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from conftest import make_pico
from onnx import TensorProto, helper
from target_samples import PAIRS, run_files

from hfcompress.errors import ModelError
from hfcompress.models.sentence_transformers import ACTIVATIONS
from hfcompress.quantization.config import DynamicQuantizationConfig
from hfcompress.quantization.onnxruntime import quantize, save_onnx
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.targets.graph import (
    ACTIVATION_OPERATORS,
    SourceGraph,
    accept_token_types,
    check_files,
    graph_scores,
    lower_opset,
    open_graph,
    with_activation,
    write_graph,
)
from hfcompress.targets.source import GraphChoice, choose_graph, read_source
from hfcompress.targets.vespa import ACTIVATION_EXPRESSIONS


def small_graph(operator: str, opset: int = 20, **attributes: object) -> onnx.ModelProto:
    """A graph of one operator, from x to logits."""
    node = helper.make_node(operator, ["x"], ["logits"], **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in ("x", "logits")]
    graph = helper.make_graph([node], "small", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def run_small(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


FP32 = GraphChoice("onnx/model.onnx", "")
X = np.linspace(-9, 9, 101, dtype=np.float32)


@pytest.mark.parametrize("family", ["bert", pytest.param("modernbert", marks=pytest.mark.soak)])
def test_lowered_graphs_score_the_same(family: str, encoder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = encoder(family)
    graph = open_graph(read_source(str(folder)), FP32, tmp_path)
    before = onnx.load(graph.path)
    assert before.opset_import[0].version > 18 and any(node.op_type == "Gelu" for node in before.graph.node)
    path = write_graph(graph, tmp_path / "lowered.onnx", [lower_opset])
    after = onnx.load(path)
    onnx.checker.check_model(after, full_check=True)
    assert after.opset_import[0].version == 18 and after.ir_version == 8
    assert all(len(node.input) == 3 for node in after.graph.node if node.op_type == "LayerNormalization")
    words = folder / "tokenizer.json"
    np.testing.assert_allclose(run_files(path, words, PAIRS[:3]), run_files(graph.path, words, PAIRS[:3]), atol=1e-5)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_is_replaced_by_its_definition(approximate: str) -> None:
    model = small_graph("Gelu", approximate=approximate)
    before = run_small(model, X)
    lower_opset(model)
    assert "Gelu" not in {node.op_type for node in model.graph.node}
    np.testing.assert_allclose(run_small(model, X), before, atol=1e-6)


def test_what_opset_18_lacks_is_refused() -> None:
    model = small_graph("Swish", opset=24)
    with pytest.raises(ModelError, match=r"opset 18.*Remedy: export the model with hfcompress"):
        lower_opset(model)


def test_token_types_are_accepted_and_ignored(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    graph = open_graph(read_source(str(encoder("roberta"))), FP32, tmp_path)
    path = write_graph(graph, tmp_path / "new.onnx", [accept_token_types])
    session = onnxruntime.InferenceSession(str(path))
    assert [(node.name, node.type) for node in session.get_inputs()] == [
        ("input_ids", "tensor(int64)"), ("attention_mask", "tensor(int64)"), ("token_type_ids", "tensor(int64)"),
    ]  # fmt: skip
    ids = np.array([[2, 7, 3, 3, 9, 3]])
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    (first,) = session.run(None, {**inputs, "token_type_ids": np.zeros_like(ids)})
    (second,) = session.run(None, {**inputs, "token_type_ids": np.ones_like(ids)})
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_has_operators_and_an_expression(name: str) -> None:
    kind = ACTIVATIONS[name]
    model = small_graph("Identity", opset=18)
    with_activation(kind.__name__)(model)
    np.testing.assert_allclose(run_small(model, X), kind()(torch.tensor(X)).numpy(), atol=1e-6)
    assert len(ACTIVATION_OPERATORS) == len(ACTIVATION_EXPRESSIONS) == len(ACTIVATIONS)
    functions = {
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "relu": lambda x: np.maximum(x, 0), "fabs": np.abs,
        "tanh": np.tanh, "log": np.log, "exp": np.exp, "x": X.astype(np.float64),
    }  # fmt: skip
    value = eval(ACTIVATION_EXPRESSIONS[kind.__name__].format(x="x"), {}, functions)
    np.testing.assert_allclose(value, kind()(torch.tensor(X)).numpy(), atol=1e-6)


def test_files_of_another_model_are_refused(cross_encoder: Path, tmp_path: Path) -> None:
    source = read_source(str(cross_encoder))
    graph = open_graph(source, GraphChoice(None, ""), tmp_path)
    words = cross_encoder / "tokenizer.json"
    check_files(source, graph, graph.path, words, activated=False)
    other = SourceGraph(graph.path, TorchRanker(make_pico(seed=1), source.tokenizer), graph.tolerance)
    with pytest.raises(ModelError, match="do not give the scores of the model"):
        check_files(source, other, graph.path, words, activated=False)
    with pytest.raises(ModelError, match="do not give the scores"):
        check_files(source, graph, graph.path, words, activated=True)
    loose = replace(graph, tolerance=10.0)
    check_files(source, loose, graph.path, words, activated=True)


def test_an_output_of_another_shape_is_refused(cross_encoder: Path, tmp_path: Path) -> None:
    node = helper.make_node("ReduceSum", ["input_ids"], ["sum"], keepdims=0)
    cast = helper.make_node("Cast", ["sum"], ["logits"], to=TensorProto.FLOAT)
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [])
    graph = helper.make_graph([node, cast], "sums", [ids], [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="one score for each pair"):
        graph_scores(tmp_path / "model.onnx", cross_encoder / "tokenizer.json", PAIRS, 32)


def test_an_int8_graph_is_compared_with_its_own_scores(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(encoder("bert"), tmp_path / "copy")
    fp32 = onnx_ir.load(folder / "onnx/model.onnx")
    save_onnx(quantize(fp32, DynamicQuantizationConfig()), folder / "onnx/model_quantized.onnx")
    source = read_source(str(folder))
    graph = open_graph(source, choose_graph(source), tmp_path)
    assert graph.path == folder / "onnx/model_quantized.onnx" and graph.tolerance == 1e-2
    path = write_graph(graph, tmp_path / "lowered.onnx", [accept_token_types, lower_opset])
    check_files(source, replace(graph, tolerance=1e-4), path, folder / "tokenizer.json", activated=False)
