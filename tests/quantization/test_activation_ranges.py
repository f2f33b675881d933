"""Activation ranges: outliers are clipped, padding and batches have no influence, and graphs contain the ranges."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from conftest import make_pico, random_inputs
from transformers import BertTokenizerFast

from hfcompress.quantization import onnxruntime as backend
from hfcompress.quantization.activation_ranges import BINS, clipped_ranges, entropy_cut, percentile_cut
from hfcompress.quantization.config import MixedPrecisionConfig, StaticQuantizationConfig
from hfcompress.quantization.onnxruntime import STATIC_OPERATORS


@pytest.fixture(scope="module")
def graph(tokenizer: BertTokenizerFast) -> onnx_ir.Model:
    return backend.export_onnx(make_pico(num_hidden_layers=2), tokenizer)


def batches(*shapes: tuple[int, int], seed: int = 0) -> list[dict[str, torch.Tensor]]:
    made = [random_inputs(batch, length, seed + number) for number, (batch, length) in enumerate(shapes)]
    return [{**batch, "token_type_ids": torch.zeros_like(batch["input_ids"])} for batch in made]


def test_percentile_keeps_that_share() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[[0, 9, 99, -1]] = 500, 400, 99, 1
    assert percentile_cut(counts, 100) == BINS
    assert percentile_cut(counts, 99.9) == 100
    assert percentile_cut(counts, 90) == 10
    assert percentile_cut(counts, 51) == 10


def test_entropy_cuts_a_few_outliers_off_and_keeps_what_is_dense() -> None:
    rng = np.random.default_rng(0)
    body = np.abs(rng.normal(size=200_000))
    outliers = np.histogram([*body, 40.0], BINS, (0, 40))[0]
    assert body.max() * 0.6 < entropy_cut(outliers) * 40 / BINS < 10
    even = np.histogram(rng.uniform(0, 1, 200_000), BINS, (0, 1))[0]
    assert entropy_cut(even) > 0.95 * BINS


def quantized_tensors(graph: onnx_ir.Model) -> set[str]:
    """Inputs and outputs of the operators that are activations in fp32."""
    nodes = [node for node in graph.graph if node.op_type in STATIC_OPERATORS]
    values = [value for node in nodes for value in (*node.inputs, *node.outputs) if value is not None]
    return {str(value.name) for value in values if value.const_value is None and value.dtype == onnx_ir.DataType.FLOAT}


def test_ranges_hold_all_values_at_100_percent(graph: onnx_ir.Model) -> None:
    given = batches((1, 9), (4, 17), (3, 5))
    ranges = clipped_ranges(graph, given, STATIC_OPERATORS, "percentile", 100)
    assert set(ranges) == quantized_tensors(graph) and len(ranges) > 20
    assert all(low < high for low, high in ranges.values())
    proto = onnx_ir.to_proto(graph)
    known = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ranges if name not in known)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in given:
        for row in range(len(batch["input_ids"])):
            real = batch["attention_mask"][row].bool()
            fed = {node.name: batch[node.name][row, real][None].numpy() for node in session.get_inputs()}
            for (low, high), values in zip(ranges.values(), session.run(list(ranges), fed), strict=True):
                assert values.min() >= low - 1e-5 and values.max() <= high + 1e-5  # up to rounding


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_batches_and_padding_do_not_count(graph: onnx_ir.Model, method: str) -> None:
    together = batches((6, 20))
    (batch,) = together
    lengths = batch["attention_mask"].sum(1).tolist()
    assert len(set(lengths)) > 3
    alone = [
        {name: values[row : row + 1, :length] for name, values in batch.items()} for row, length in enumerate(lengths)
    ]
    found, again = (clipped_ranges(graph, each, STATIC_OPERATORS, method, 99) for each in (together, alone))
    assert found.keys() == again.keys()
    for name in found:
        np.testing.assert_allclose(found[name], again[name])


def test_percentile_cuts_an_outlier_off(graph: onnx_ir.Model) -> None:
    given = batches((8, 30), (8, 12))
    full = clipped_ranges(graph, given, STATIC_OPERATORS, "percentile", 100)
    cut = clipped_ranges(graph, given, STATIC_OPERATORS, "percentile", 90)
    assert all(full[name][0] <= low and high <= full[name][1] for name, (low, high) in cut.items())
    narrower = [high - low < 0.9 * (full[name][1] - full[name][0]) for name, (low, high) in cut.items()]
    assert np.mean(narrower) > 0.8


def scales(graph: onnx_ir.Model) -> dict[str, float]:
    """Scale of every activation that a static graph quantizes; rows of a table keep the scale of the table."""
    rows = {node.outputs[0].name for node in graph.graph if node.op_type == "Gather"}
    found = {}
    for node in graph.graph:
        if node.op_type == "QuantizeLinear" and node.inputs[0].name not in rows:
            found[node.inputs[0].name] = float(node.inputs[1].const_value.numpy())
    return found


def test_graphs_are_made_with_the_ranges(graph: onnx_ir.Model) -> None:
    given = batches((8, 30), (8, 12))
    config = StaticQuantizationConfig(calibration="percentile", percentile=90)
    ranges = clipped_ranges(graph, given, STATIC_OPERATORS, "percentile", 90)
    found = scales(backend.quantize(graph, config, given))
    assert len(found) > 10
    for name, scale in found.items():
        low, high = ranges[name]
        assert scale == pytest.approx((max(high, 0) - min(low, 0)) / 255, rel=1e-4), name


def test_what_products_put_out_stays_in_fp32(graph: onnx_ir.Model) -> None:
    products = {node.outputs[0].name for node in graph.graph if node.op_type == "MatMul"}
    quantized = backend.quantize(graph, StaticQuantizationConfig(), batches((8, 30)))
    assert len(products) > 10 and not products & scales(quantized).keys()


def test_mixed_precision_leaves_products_of_activations_in_fp32(graph: onnx_ir.Model) -> None:
    given = batches((8, 30))
    configs = StaticQuantizationConfig(), MixedPrecisionConfig(0.01, "static")
    all_of_it, mixed = (scales(backend.quantize(graph, config, given)).keys() for config in configs)
    assert mixed < all_of_it and len(all_of_it) - len(mixed) >= 2 * 4  # of 2 layers: queries, keys, values, attention


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_scores_keep_their_order(graph: onnx_ir.Model, method: str) -> None:
    quantized = backend.quantize(graph, StaticQuantizationConfig(calibration=method), batches((8, 30), (5, 12)))
    before, after = (run(each, batches((40, 20), seed=9)[0]) for each in (graph, quantized))
    assert np.corrcoef(before, after)[0, 1] > 0.9


def test_signed_and_unsigned_activations_are_the_same_numbers(graph: onnx_ir.Model) -> None:
    given = batches((8, 30))
    made = {
        kind: backend.quantize(graph, StaticQuantizationConfig(activation_type=kind), given)
        for kind in ("int8", "uint8")
    }
    for kind, quantized in made.items():
        zeros = [node.inputs[2].const_value for node in quantized.graph if node.op_type == "QuantizeLinear"]
        assert zeros and {str(zero.numpy().dtype) for zero in zeros} == {kind}
    inputs = batches((20, 20), seed=9)[0]
    np.testing.assert_allclose(run(made["int8"], inputs), run(made["uint8"], inputs), atol=0.05)


def run(graph: onnx_ir.Model, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    content = onnx_ir.to_proto(graph).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {node.name: inputs[node.name].numpy() for node in session.get_inputs()})[0][:, 0]
