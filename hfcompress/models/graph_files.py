"""The files of a graph: the graph itself, and the weights that some graphs keep in files beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hfcompress.errors import ModelError
from hfcompress.models.layout import ONNX_FP32
from hfcompress.utils.files import write_text

if TYPE_CHECKING:
    import onnx

TRANSFORMERS_JS = "transformers.js_config"  # key of config.json that transformers.js reads
EXTERNAL_DATA_KEY = "use_external_data_format"  # of it: number of data files by name of the graph


def data_file(graph: Path) -> Path:
    """The file of an ONNX graph's external data: `model.onnx_data` beside `model.onnx`.

    The graph itself would allow any name. This is the one that optimum, sentence-transformers, transformers.js and
    text-embeddings-inference download with a graph.
    """
    return graph.with_name(f"{graph.name}_data")


def graph_files(graph: Path) -> list[Path]:
    """A graph and all files that it needs beside it, whether they exist or not.

    Args:
        graph: An `.onnx` file, which names the files of its external data, an OpenVINO `.xml` file, or any other file,
            which needs none.

    Raises:
        ModelError: The `.onnx` file cannot be read.
    """
    if graph.suffix == ".xml":
        return [graph, graph.with_suffix(".bin")]
    return [graph, *external_data(graph)] if graph.suffix == ".onnx" else [graph]


def record_external_data(folder: Path) -> None:
    """Record in `config.json` which graphs have external data: transformers.js loads only what is recorded there.

    A record of the original model, whose graphs are not these, is replaced.

    Args:
        folder: Repository with its graphs.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    graphs = {
        graph.name: 1 for graph in sorted((folder / ONNX_FP32).parent.glob("*.onnx")) if data_file(graph).is_file()
    }
    before = config.get(TRANSFORMERS_JS) or {}
    settings = {key: value for key, value in before.items() if key != EXTERNAL_DATA_KEY}
    if graphs:
        settings[EXTERNAL_DATA_KEY] = graphs
    if settings != before:
        config[TRANSFORMERS_JS] = settings
        write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def external_data(graph: Path) -> list[Path]:
    """Sorted paths of the external data of an ONNX graph, whether they exist or not; none if it contains its weights.

    Raises:
        ModelError: The file cannot be read.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(graph, load_external_data=False)
    except DecodeError as error:
        raise ModelError(
            f"The ONNX graph {graph} cannot be read",
            value=str(error),
            expected="a complete .onnx file",
            remedy="copy or export it again",
        ) from error
    locations = {
        entry.value
        for tensor in _tensors(model.graph)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return sorted(graph.parent / location for location in locations)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors with values: initializers and attributes, also of subgraphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from [attribute.t, *attribute.tensors]
            for inner in [attribute.g, *attribute.graphs]:
                yield from _tensors(inner)
