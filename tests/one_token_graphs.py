"""How many products of an exported graph compute the first token alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir
import torch

from hfcompress.utils.openvino_core import openvino_core

if TYPE_CHECKING:
    import openvino


def run_openvino(graph: openvino.Model) -> Callable[[dict[str, torch.Tensor]], Mapping[object, np.ndarray]]:
    compiled = openvino_core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: compiled({node.any_name: inputs[node.any_name].numpy() for node in compiled.inputs})


def onnx_products_of_one_token(graph: onnx_ir.Model) -> int:
    """How many matrix products have a fixed length of one token, (batch, 1, width)."""
    shapes = [node.outputs[0].shape for node in graph.graph if node.op_type == "MatMul"]
    return sum(shape is not None and len(shape) == 3 and shape[1] == 1 for shape in shapes)


def openvino_products_of_one_token(graph: openvino.Model, inputs: dict[str, torch.Tensor]) -> int:
    """The same, counted in a run: the graph does not write every shape down."""
    import openvino

    nodes = [node for node in graph.get_ordered_ops() if node.get_type_name() == "MatMul"]
    products = [node.output(0) for node in nodes if len(node.get_output_partial_shape(0)) == 3]
    run = run_openvino(openvino.Model(products, graph.get_parameters()))
    return sum(product.shape[1] == 1 for product in run(inputs).values())
