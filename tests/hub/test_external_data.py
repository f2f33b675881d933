"""External data of a graph is published with the graph, and checked like every other file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from stub_graphs import stub_graph

from hfcompress.errors import ModelError, OutputError
from hfcompress.hub.repository import read_repository
from hfcompress.models.graph_files import data_file
from hfcompress.models.layout import ONNX_INT8
from hfcompress.models.load import model_fingerprint
from hfcompress.pipeline import publish_locally
from hfcompress.report.report import RunReport


def test_a_run_publishes_both_files_and_removes_those_of_the_run_before(stub_run: Path, tmp_path: Path) -> None:
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "out"
    shutil.copytree(stub_run, checkpoint, ignore=shutil.ignore_patterns(".hfcompress", "report.json", "README.md"))
    data = data_file(checkpoint / ONNX_INT8)
    data.write_bytes(b"weights")
    report = RunReport.load(stub_run).model_copy(update={"recipe": "name: x\ndata: {sets: [a]}\nteacher: {model: b}\n"})
    publish_locally(out, checkpoint, report)
    assert (out / "onnx" / data.name).read_bytes() == b"weights"
    data.unlink()
    publish_locally(out, checkpoint, report)
    assert [path.name for path in (out / "onnx").iterdir()] == ["model_quantized.onnx"]


def external_stub(path: Path, location: str) -> None:
    weight = onnx.numpy_helper.from_array(np.ones(3, np.float32), "weight")
    model = onnx.load_model_from_string(stub_graph())
    model.graph.initializer.append(weight)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    path.write_bytes(model.SerializeToString())


def test_the_hub_gets_both_files_or_nothing(run_folder: Path) -> None:
    graph = run_folder / ONNX_INT8
    external_stub(graph, "model_quantized.onnx_data")
    with pytest.raises(OutputError, match=r"not complete.*onnx/model_quantized\.onnx_data"):
        read_repository(run_folder)
    data_file(graph).write_bytes(np.ones(3, np.float32).tobytes())
    assert "onnx/model_quantized.onnx_data" in read_repository(run_folder).files
    data_file(graph).write_bytes(b"/usr/lib/python3/site-packages/")
    with pytest.raises(OutputError, match=r"absolute paths.*model_quantized\.onnx_data"):
        read_repository(run_folder)


def test_data_outside_the_repository_is_not_published(run_folder: Path) -> None:
    (run_folder.parent / "secret").write_bytes(b"x" * 12)
    external_stub(run_folder / ONNX_INT8, "../../secret")
    with pytest.raises(OutputError, match=r"not complete.*\.\./secret"):
        read_repository(run_folder)


def test_a_graph_that_cannot_be_read_is_refused(run_folder: Path) -> None:
    (run_folder / ONNX_INT8).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match=r"model_quantized\.onnx cannot be read"):
        read_repository(run_folder)
    with pytest.raises(ModelError, match="cannot be read"):
        model_fingerprint(str(run_folder), ONNX_INT8)
