"""Scale and shift the logits of files that were written already: graphs, and packed weights.

A graph gets one multiplication and one addition of single numbers behind its last product. Its weights stay as they
are: int8 weights scaled and rounded again would be other weights, and the order of close scores could change. Both
operations are monotone in floating point, too, so the order of all scores stays. The identity changes no graph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hfcompress.models.packing import rescale_packed
from hfcompress.quantization.openvino import require_openvino, save_openvino
from hfcompress.utils.files import write_bytes
from hfcompress.utils.openvino_core import openvino_core


def rescale_file(path: Path, scale: float, shift: float, layer: str) -> None:
    """Scale and shift the logits of a file, in place.

    Args:
        path: An ONNX graph, an OpenVINO graph, or packed weights.
        scale: Factor of the logit, above 0.
        shift: What is added to it.
        layer: Path in the model of the linear layer that computes the logit, for packed weights.

    Raises:
        MissingExtraError: It is an OpenVINO graph, and OpenVINO is not installed.
        ModelError: Packed weights cannot be read.
    """
    if (scale, shift) == (1.0, 0.0) and path.suffix in (".onnx", ".xml"):
        return
    if path.suffix == ".onnx":
        _rescale_onnx(path, scale, shift)
    elif path.suffix == ".xml":
        _rescale_openvino(path, scale, shift)
    else:
        rescale_packed(path, layer, scale, shift)


def _rescale_onnx(path: Path, scale: float, shift: float) -> None:
    model = onnx.load(path, load_external_data=False)  # which stays as it is
    graph = model.graph
    name = graph.output[0].name
    stem = f"{name}_before_map_{len(graph.node)}"
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [stem if each == name else each for each in names]
    for operator, value, before, after in (("Mul", scale, stem, f"{stem}_Mul"), ("Add", shift, f"{stem}_Mul", name)):
        number = f"{stem}_{operator}_number"
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), number))
        graph.node.append(helper.make_node(operator, [before, number], [after], name=f"{stem}_{operator}_node"))
    write_bytes(path, model.SerializeToString())


def _rescale_openvino(path: Path, scale: float, shift: float) -> None:
    require_openvino()
    from openvino import opset8 as operators

    model = openvino_core().read_model(str(path))
    result = model.get_results()[0]
    before = result.input(0).get_source_output()
    names = before.get_names()
    scaled = operators.multiply(before, operators.constant(np.float32(scale)))
    shifted = operators.add(scaled, operators.constant(np.float32(shift)))
    before.set_names(set())
    shifted.output(0).set_names(names)
    result.input(0).replace_source_output(shifted.output(0))
    save_openvino(model, path)
