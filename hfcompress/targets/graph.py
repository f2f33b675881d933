"""ONNX graphs for other programs: inputs that they send, activations, older versions of the format, and a check."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from tokenizers import Tokenizer

from hfcompress.errors import ModelError
from hfcompress.models.graph_files import external_data
from hfcompress.models.load import load_model
from hfcompress.quantization import onnxruntime as onnx_backend
from hfcompress.quantization.artifacts import EXPORT_TOLERANCE, STAND_IN_PAIRS
from hfcompress.rankers.base import BatchedRanker
from hfcompress.rankers.load import activation_of, load_ranker
from hfcompress.rankers.onnxruntime import CPU, INPUTS, SLOW_FUSIONS
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.targets.source import GraphChoice, Source
from hfcompress.utils.files import write_bytes

INT8_TOLERANCE = 1e-2  # rounding to int8 turns differences in the last bit of fp32 into steps
# ONNX Runtime 1.14 and later read these: OpenSearch 3 has 1.16.3, which stops at opset 19 and IR version 9.
OLDEST_OPSET, OLDEST_IR = 18, 8
# By the class of PyTorch: operators of ONNX, applied one after another.
ACTIVATION_OPERATORS: dict[str, tuple[str, ...]] = {
    "Identity": (),
    "Sigmoid": ("Sigmoid",),
    "Tanh": ("Tanh",),
    "LogSigmoid": ("Neg", "Softplus", "Neg"),
    "Softplus": ("Softplus",),
    "Softsign": ("Softsign",),
    "ReLU": ("Relu",),
}
Edit = Callable[[onnx.ModelProto], None]


@dataclass(frozen=True)
class SourceGraph:
    """The chosen graph of a model.

    Attributes:
        path: The `.onnx` file.
        ranker: A ranker whose scores an edited copy of the graph must have.
        tolerance: Largest acceptable difference of a score.
    """

    path: Path
    ranker: BatchedRanker
    tolerance: float


def open_graph(source: Source, choice: GraphChoice, scratch: Path) -> SourceGraph:
    """Open the chosen graph, after its export from the checkpoint if there is none.

    Args:
        source: The model.
        choice: The choice.
        scratch: Folder for an exported graph; it must exist as long as the graph is used.

    Raises:
        ModelError: The model or graph cannot be opened.
    """
    if choice.path is not None:
        ranker = load_ranker(source.folder, file=choice.path, max_length=source.max_length)
        return SourceGraph(
            source.folder / choice.path, ranker, EXPORT_TOLERANCE if choice.precision == "fp32" else INT8_TOLERANCE
        )
    model = load_model(source.name, dtype="float32")
    exported = onnx_backend.export_onnx(model, source.tokenizer)
    path = onnx_backend.save_onnx(exported, scratch / "model.onnx")
    return SourceGraph(path, TorchRanker(model, source.tokenizer, activation_of(source.config)), EXPORT_TOLERANCE)


def write_graph(graph: SourceGraph, path: Path, edits: Sequence[Edit] = ()) -> Path:
    """Write an edited copy of a graph, with its external data beside it.

    Args:
        graph: The graph.
        path: The new `.onnx` file.
        edits: Changes of inputs and nodes; weights stay as they are.
    """
    model = onnx.load(graph.path, load_external_data=False)
    for edit in edits:
        edit(model)
    write_bytes(path, model.SerializeToString())
    for data in external_data(graph.path):
        shutil.copyfile(data, path.parent / data.name)
    return path


def accept_token_types(model: onnx.ModelProto) -> None:
    """Give a graph the inputs of BERT in their usual order; ONNX Runtime accepts and ignores those without a node."""
    inputs = {value.name: value for value in model.graph.input}
    shape = [dim.dim_param or dim.dim_value for dim in inputs["input_ids"].type.tensor_type.shape.dim]
    for name in INPUTS:
        inputs.setdefault(name, helper.make_tensor_value_info(name, TensorProto.INT64, shape))
    del model.graph.input[:]
    model.graph.input.extend(inputs[name] for name in INPUTS)


def with_activation(name: str) -> Edit:
    """An edit that applies the activation of the checkpoint to the output of a graph.

    Args:
        name: Its class in PyTorch, a key of `ACTIVATION_OPERATORS`.
    """

    def edit(model: onnx.ModelProto) -> None:
        output = model.graph.output[0]
        for number, operator in enumerate(ACTIVATION_OPERATORS[name]):
            before, after = output.name, f"activation_{number}"
            model.graph.node.append(helper.make_node(operator, [before], [after], name=f"{after}_{operator}"))
            output.name = after

    return edit


def lower_opset(model: onnx.ModelProto) -> None:
    """Rewrite a graph for older versions of ONNX Runtime: opset 18, IR version 8.

    Of the operators that exports use, only Gelu is newer (opset 20). It is replaced by its definition. Layer norms
    without a bias get one of zeros, since ONNX Runtime 1.16 ends the process when it fuses one that has none.

    Raises:
        ModelError: The graph has another operator or attribute that opset 18 does not have.
    """
    if any(entry.version > OLDEST_OPSET for entry in model.opset_import if not entry.domain):
        nodes = [part for node in model.graph.node for part in (_gelu(node) if node.op_type == "Gelu" else [node])]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        for entry in model.opset_import:
            if not entry.domain:
                entry.version = OLDEST_OPSET
    model.ir_version = min(model.ir_version, OLDEST_IR)
    _add_biases(model.graph)
    weights = [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in model.graph.initializer
    ]
    graph = helper.make_graph(model.graph.node, "check", [*model.graph.input, *weights], model.graph.output)
    try:  # without the weights, which may be in another file
        onnx.checker.check_model(
            helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version), full_check=True
        )
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            f"The graph cannot be written for opset {OLDEST_OPSET} of ONNX",
            value=str(error).splitlines()[0],
            expected="a graph that hfcompress exported",
            remedy="export the model with hfcompress, and name that graph with --file",
        ) from error


def _add_biases(graph: onnx.GraphProto) -> None:
    """Add the third input, which is optional, to layer norms without it."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "LayerNormalization" and len(node.input) == 2 and node.input[1] in shapes:
            zeros = np.zeros(shapes[node.input[1]], dtype=np.float32)
            bias = onnx.numpy_helper.from_array(zeros, f"{node.output[0]}_bias")
            graph.initializer.append(bias)
            node.input.append(bias.name)


def _gelu(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Nodes that compute Gelu as ONNX defines it: x * (0.5 + 0.5 * erf(x / sqrt(2))), or its approximation by tanh."""
    (x,), (out,) = node.input, node.output
    approximate = any(each.name == "approximate" and each.s == b"tanh" for each in node.attribute)
    nodes: list[onnx.NodeProto] = []

    def constant(value: float) -> str:
        name = f"{out}_gelu_{len(nodes)}"
        nodes.append(helper.make_node("Constant", [], [name], value=helper.make_tensor("", 1, [], [value])))
        return name

    def add(operator: str, *inputs: str, to: str = "") -> str:
        name = to or f"{out}_gelu_{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [name], name=f"{name}_{operator}"))
        return name

    if approximate:
        cubed = add("Mul", add("Mul", add("Mul", x, x), x), constant(0.044715))
        curve = add("Tanh", add("Mul", add("Add", x, cubed), constant(math.sqrt(2 / math.pi))))
    else:
        curve = add("Erf", add("Div", x, constant(math.sqrt(2))))
    add("Mul", add("Mul", x, add("Add", curve, constant(1.0))), constant(0.5), to=out)
    return nodes


def graph_scores(graph: Path, tokenizer: Path, pairs: Sequence[tuple[str, str]], max_length: int) -> np.ndarray:
    """Scores of pairs by the files alone, as another program computes them: one pair at a time, without padding.

    Args:
        graph: The `.onnx` file.
        tokenizer: The `tokenizer.json`.
        pairs: Pairs of query and document; a prompt is part of the query.
        max_length: Longest input in tokens, where the other program truncates pairs and `tokenizer.json` does not.

    Returns:
        The outputs of the graph, shape `(len(pairs),)`.

    Raises:
        ModelError: The output is no column of scores.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph), providers=[CPU], disabled_optimizers=list(SLOW_FUSIONS))
    words, scores = Tokenizer.from_file(str(tokenizer)), []
    if words.truncation is None:
        words.enable_truncation(max_length)
    for query, document in pairs:
        row = words.encode(query, document)
        features = dict(zip(INPUTS, (row.ids, row.attention_mask, row.type_ids), strict=True))
        inputs = {node.name: np.array([features[node.name]], dtype=np.int64) for node in session.get_inputs()}
        output = session.run(None, inputs)[0]
        if output.shape != (1, 1):
            raise ModelError(
                "The graph does not give one score for each pair",
                value=f"an output of shape {output.shape} for one pair",
                expected="shape (1, 1): batch and score",
                remedy="export the model with hfcompress, and name that graph with --file",
            )
        scores.append(output[0, 0])
    return np.array(scores, dtype=np.float32)


def check_files(source: Source, graph: SourceGraph, path: Path, tokenizer: Path, activated: bool) -> None:
    """Check that the written files alone give the scores of the model.

    Args:
        source: The model.
        graph: Its graph.
        path: The written `.onnx` file.
        tokenizer: The written `tokenizer.json`.
        activated: Whether the written graph applies the activation.

    Raises:
        ModelError: They do not.
    """
    pairs = [(source.prompt + query, document) for query, document in STAND_IN_PAIRS]
    found = graph_scores(path, tokenizer, pairs, source.max_length)
    wanted = np.concatenate([graph.ranker.score([pair]) for pair in STAND_IN_PAIRS])
    if activated:
        wanted = graph.ranker.activation(wanted)
    difference = float(np.abs(found - wanted).max())
    if not difference <= graph.tolerance:
        raise ModelError(
            "The written graph and tokenizer do not give the scores of the model",
            value=f"largest difference {difference:.2g} over {len(wanted)} pairs",
            expected=f"at most {graph.tolerance:g}",
            remedy="name the fp32 graph with --file onnx/model.onnx; if it differs too, report this model",
        )
