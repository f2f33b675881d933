"""ONNX export, and int8 with ONNX Runtime's own tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import torch
from onnxruntime.quantization import QuantType
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.exporters import (
    ExportFormat,
    OnnxConfig,
    OnnxExporter,
    OnnxRuntimeDynamicConfig,
    OnnxRuntimeQuantizer,
    OnnxRuntimeStaticConfig,
)

from hfcompress.files import write_bytes
from hfcompress.machine import cpu_target
from hfcompress.quantization.calibration import clipped_ranges
from hfcompress.quantization.config import (
    DynamicQuantizationConfig,
    MixedPrecisionConfig,
    StaticQuantizationConfig,
    activation_type,
    require_calibration,
    saturates,
)
from hfcompress.quantization.export import dynamic_shapes, example_inputs, ready_for_export
from hfcompress.quiet import quiet

# Matrix products gain from int8, and the embedding table is most of a small model's size. Quantizing every operator,
# as static quantization does by default, is slower than fp32.
DYNAMIC_OPERATORS = ("MatMul", "Gemm", "Gather")
# Static int8: the head (Gemm) stays in fp32, and so does what products put out: sums into the residual stream have
# outliers that leave few of 256 levels to all else; ONNX Runtime has a kernel that multiplies int8 and puts out fp32.
STATIC_OPERATORS = ("MatMul", "Gather")
# What torch notes at every node: lines of source files, with their paths on the machine that exported.
STACK_TRACE = "pkg.torch.onnx.stack_trace"


def export_onnx(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, first_token: bool = True) -> onnx_ir.Model:
    """Export to ONNX in fp32 with dynamic batch and length.

    Args:
        model: A sequence-classification model, pruned or not.
        tokenizer: Its tokenizer; says which inputs there are.
        first_token: Compute the last layer for the first token only, where the head reads nothing else: same scores,
            less work.
    """
    inputs = example_inputs(model, tokenizer)
    config = OnnxConfig(dynamic_shapes=dynamic_shapes(model, inputs))
    with ready_for_export(model, first_token), quiet():
        program = OnnxExporter().export(model, inputs, config).program
    for node in program.graph.all_nodes():
        node.metadata_props.pop(STACK_TRACE, None)
    return program


def save_onnx(graph: onnx_ir.Model, path: Path) -> Path:
    """Write a graph with its weights in one file, aside and then into place."""
    return write_bytes(path, onnx_ir.to_proto(graph).SerializeToString())


def quantize(
    graph: onnx_ir.Model,
    config: DynamicQuantizationConfig | StaticQuantizationConfig,
    calibration: Sequence[dict[str, torch.Tensor]] = (),
    fp32_nodes: Sequence[str] = (),
) -> onnx_ir.Model:
    """Quantize an exported graph to int8; the graph given stays as it is.

    Args:
        graph: What `export_onnx` returned.
        config: Dynamic or static int8, or mixed precision.
        calibration: Batches of model inputs, for static int8 only.
        fp32_nodes: Names of nodes to leave in fp32.

    Raises:
        DataError: Static int8 without calibration batches.
    """
    require_calibration(config, calibration)
    reduce_range = saturates(cpu_target()) if config.reduce_range is None else config.reduce_range
    settings: OnnxRuntimeDynamicConfig | OnnxRuntimeStaticConfig
    if isinstance(config, DynamicQuantizationConfig) or config.mode == "dynamic":
        settings = OnnxRuntimeDynamicConfig(
            op_types_to_quantize=list(DYNAMIC_OPERATORS),
            per_channel=config.per_channel,
            reduce_range=reduce_range,
            nodes_to_exclude=list(fp32_nodes),
        )
    else:
        unsigned = (config.activation_type or activation_type(cpu_target())) == "uint8"
        settings = OnnxRuntimeStaticConfig(
            op_types_to_quantize=list(STATIC_OPERATORS),
            per_channel=config.per_channel,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
            nodes_to_exclude=[*fp32_nodes, *(_products(graph) if isinstance(config, MixedPrecisionConfig) else ())],
            extra_options={
                **_clipping(graph, config, calibration),
                "OpTypesToExcludeOutputQuantization": ["MatMul"],
            },
        )
    with quiet():
        quantizer = OnnxRuntimeQuantizer(settings, list(calibration))
        return quantizer.quantize(graph, {}, ExportFormat.ONNX)


def _products(graph: onnx_ir.Model) -> list[str]:
    """Nodes that multiply activations with each other, as attention does; mixed precision bounds the linear layers."""
    return [
        str(node.name)
        for node in graph.graph
        if node.op_type == "MatMul" and (node.inputs[1] is None or node.inputs[1].const_value is None)
    ]


def _clipping(
    graph: onnx_ir.Model, config: StaticQuantizationConfig, calibration: Sequence[dict[str, torch.Tensor]]
) -> dict[str, Any]:
    """Options that put ranges without outliers in place of ONNX Runtime's own, which keep every value."""
    if config.calibration == "minmax":
        return {}
    with quiet():
        ranges = clipped_ranges(graph, calibration, STATIC_OPERATORS, config.calibration, config.percentile)
    limits = {name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in ranges.items()}
    return {"TensorQuantOverrides": limits}
