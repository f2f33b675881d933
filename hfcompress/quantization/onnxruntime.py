"""ONNX export, and int8 quantization with ONNX Runtime's own tools."""

from __future__ import annotations

import os
import tempfile
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

from hfcompress.models.graph_files import data_file
from hfcompress.models.wrappers import unwrapped
from hfcompress.quantization.activation_ranges import calibration_threads, clipped_ranges
from hfcompress.quantization.config import (
    DynamicQuantizationConfig,
    MixedPrecisionConfig,
    StaticQuantizationConfig,
    activation_type,
    require_calibration,
    saturates,
)
from hfcompress.quantization.export import dynamic_shapes, example_inputs, ready_for_export
from hfcompress.utils.files import write_bytes
from hfcompress.utils.machine import cpu_target
from hfcompress.utils.quiet import quiet

# Matrix products are faster in int8, and the embedding table is most of a small model's size. Quantizing every
# operator, the default of static quantization, is slower than fp32.
DYNAMIC_OPERATORS = ("MatMul", "Gemm", "Gather")
# Static int8: the head (Gemm) stays in fp32, and so do the outputs of products: sums into the residual stream have
# outliers that leave few of 256 levels to other values. ONNX Runtime has a kernel with int8 inputs and fp32 outputs.
STATIC_OPERATORS = ("MatMul", "Gather")
# Metadata that torch adds to every node: lines of source files, with their paths on the exporting machine.
STACK_TRACE = "pkg.torch.onnx.stack_trace"
# Bytes of weights from which a graph keeps them in a file of their own. Protobuf, the format of `.onnx` files, has a
# limit of 2^31 bytes; the rest is for the graph itself.
EXTERNAL_DATA_FROM = 2_000_000_000
ALIGNMENT = 4096  # of each tensor in that file: kernels round differently on unaligned addresses


def export_onnx(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, first_token: bool = True) -> onnx_ir.Model:
    """Export to ONNX in fp32 with dynamic batch size and length.

    Args:
        model: A sequence-classification model, pruned or not.
        tokenizer: Its tokenizer, which determines the inputs.
        first_token: Compute the last layer for the first token only, if the head reads nothing else: same scores, less
            work.
    """
    model = unwrapped(model)
    inputs = example_inputs(model, tokenizer)
    config = OnnxConfig(dynamic_shapes=dynamic_shapes(model, inputs))
    with ready_for_export(model, first_token), quiet():
        program = OnnxExporter().export(model, inputs, config).program
    for node in program.graph.all_nodes():
        node.metadata_props.pop(STACK_TRACE, None)
    return program


def save_onnx(graph: onnx_ir.Model, path: Path) -> Path:
    """Write a graph with its weights to one file, or from 2 GB of weights on to two: see `data_file`.

    Each file is replaced atomically. A data file of an earlier graph is removed.
    """
    data = data_file(path)
    if _weight_bytes(graph) < EXTERNAL_DATA_FROM:
        write_bytes(path, onnx_ir.to_proto(graph).SerializeToString())
        data.unlink(missing_ok=True)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder, path.name)
        onnx_ir.save(graph, temporary, external_data=data.name, alignment=ALIGNMENT, align_threshold=0)
        os.replace(data_file(temporary), data)
        os.replace(temporary, path)
    return path


def _weight_bytes(graph: onnx_ir.Model) -> int:
    """Bytes of all initializers."""
    tensors = (value.const_value for part in graph.graphs() for value in part.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def quantize(
    graph: onnx_ir.Model,
    config: DynamicQuantizationConfig | StaticQuantizationConfig,
    calibration: Sequence[dict[str, torch.Tensor]] = (),
    fp32_nodes: Sequence[str] = (),
) -> onnx_ir.Model:
    """Quantize an exported graph to int8; the given graph is not changed.

    Args:
        graph: Result of `export_onnx`.
        config: Dynamic or static int8, or mixed precision.
        calibration: Batches of model inputs, for static int8 only.
        fp32_nodes: Names of the nodes that stay in fp32.

    Raises:
        DataError: Static int8 without calibration batches.
    """
    require_calibration(config, calibration)
    reduce_range = saturates(cpu_target()) if config.reduce_range is None else config.reduce_range
    common: dict[str, Any] = {"per_channel": config.per_channel, "reduce_range": reduce_range}
    settings: OnnxRuntimeDynamicConfig | OnnxRuntimeStaticConfig
    if isinstance(config, DynamicQuantizationConfig) or config.mode == "dynamic":
        settings = OnnxRuntimeDynamicConfig(
            op_types_to_quantize=list(DYNAMIC_OPERATORS), nodes_to_exclude=list(fp32_nodes), **common
        )
    else:
        unsigned = (config.activation_type or activation_type(cpu_target())) == "uint8"
        settings = OnnxRuntimeStaticConfig(
            op_types_to_quantize=list(STATIC_OPERATORS),
            activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
            nodes_to_exclude=[*fp32_nodes, *(_products(graph) if isinstance(config, MixedPrecisionConfig) else ())],
            extra_options={**_clipping(graph, config, calibration), "OpTypesToExcludeOutputQuantization": ["MatMul"]},
            **common,
        )
    with quiet(), calibration_threads():
        return OnnxRuntimeQuantizer(settings, list(calibration)).quantize(graph, {}, ExportFormat.ONNX)


def constant_factor(node: onnx_ir.Node) -> onnx_ir.TensorProtocol | None:
    """The weight by which a node multiplies; None if it multiplies two activations."""
    return node.inputs[1].const_value if node.inputs[1] is not None else None


def _products(graph: onnx_ir.Model) -> list[str]:
    """Nodes that multiply two activations, as in attention; mixed precision chooses among the linear layers only."""
    return [str(node.name) for node in graph.graph if node.op_type == "MatMul" and constant_factor(node) is None]


def _clipping(
    graph: onnx_ir.Model, config: StaticQuantizationConfig, calibration: Sequence[dict[str, torch.Tensor]]
) -> dict[str, Any]:
    """Options that replace ONNX Runtime's ranges, which cover every value, by ranges without outliers."""
    if config.calibration == "minmax":
        return {}
    with quiet():
        ranges = clipped_ranges(graph, calibration, STATIC_OPERATORS, config.calibration, config.percentile)
    limits = {name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in ranges.items()}
    return {"TensorQuantOverrides": limits}
