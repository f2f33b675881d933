"""Graphs above the limit of protobuf have external data: written, scored, copied, counted and published with it.

The limit is lowered here, so that pico models are above it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from conftest import FFN, HEADS, WORDS, make_pico
from transformers import AutoConfig, BertTokenizerFast, PreTrainedModel

from hfcompress.errors import ModelError
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.cold_start import measure_cold_start
from hfcompress.models.graph_files import data_file, external_data, graph_files, record_external_data
from hfcompress.models.layout import GENERATED, ONNX_FP32, ONNX_INT8, matches
from hfcompress.models.load import model_fingerprint
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import apply_plan
from hfcompress.pruning.costs.latency import Deployment, deploy
from hfcompress.quantization import onnxruntime as onnx_backend
from hfcompress.quantization.artifacts import calibration_batches
from hfcompress.quantization.config import (
    DynamicQuantizationConfig,
    MixedPrecisionConfig,
    StaticQuantizationConfig,
    WeightQuantizationConfig,
)
from hfcompress.quantization.mixed_precision import choose_fp32_modules
from hfcompress.quantization.quantizer import RankerQuantizer
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import load_ranker
from hfcompress.rankers.onnxruntime import OnnxRuntimeRanker
from hfcompress.utils.files import size_of

LAYERS = 2  # few, since an export takes seconds
PLAN = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(0, (0, 2), (1, 2, 3)), LayerPlan(1, (0, 2, 3), tuple(range(5)))))
PAIRS = [(query, f"{WORDS[index]} {query} {WORDS[-index]}") for query in ("ba de", "fi") for index in range(4)]
INT8 = {
    "dynamic": DynamicQuantizationConfig(),
    "static": StaticQuantizationConfig(),
    "percentile": StaticQuantizationConfig(calibration="percentile"),
}
Exported = tuple[PreTrainedModel, onnx_ir.Model]


def limit_graphs(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Graphs with as many bytes of weights have external data."""
    monkeypatch.setattr(onnx_backend, "EXTERNAL_DATA_FROM", size)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model is above the limit."""
    limit_graphs(monkeypatch, 1)


@pytest.fixture(
    scope="module",
    params=[True, pytest.param(False, marks=pytest.mark.soak)],
    ids=["first token only", "all tokens"],
)
def exported(request: pytest.FixtureRequest, tokenizer: BertTokenizerFast) -> Exported:
    """A pruned model and its graph."""
    model = apply_plan(make_pico(num_hidden_layers=LAYERS), PLAN)
    return model, onnx_backend.export_onnx(model, tokenizer, request.param)


@pytest.fixture(scope="module")
def written(tokenizer: BertTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of a model above the limit, with fp32, int8 and packed weights; copy it before a change."""
    folder = tmp_path_factory.mktemp("large") / "out"
    with pytest.MonkeyPatch.context() as monkeypatch:
        limit_graphs(monkeypatch, 1)
        configs = [DynamicQuantizationConfig(), WeightQuantizationConfig(bits=4)]
        RankerQuantizer(make_pico(num_hidden_layers=LAYERS), tokenizer).quantize(folder, configs, PAIRS, progress=False)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


def weights_inside(graph: Path) -> int:
    """Bytes of the larger weights in the `.onnx` file itself."""
    tensors = onnx.load(graph, load_external_data=False).graph.initializer
    return sum(len(tensor.raw_data) for tensor in tensors if len(tensor.raw_data) > 256)


@pytest.mark.parametrize("kind", ["fp32", *INT8, "mixed precision"])
def test_every_graph_scores_the_same_with_external_data(
    kind: str, exported: Exported, tokenizer: BertTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, graph = exported
    calibration = calibration_batches(tokenizer, PAIRS)
    scores = []
    for limit in (1 << 31, 1):
        limit_graphs(monkeypatch, limit)
        written = graph
        if kind in INT8:
            written = onnx_backend.quantize(graph, INT8[kind], calibration)
        elif kind == "mixed precision":
            bound = MixedPrecisionConfig(max_loss=1.0, mode="static")
            options = {"calibration": calibration, "pairs": PAIRS, "progress": False}
            _, written = choose_fp32_modules(model, tokenizer, graph, bound, **options)
        path = onnx_backend.save_onnx(written, tmp_path / str(limit) / "model.onnx")
        assert external_data(path) == ([data_file(path)] if limit == 1 else [])
        assert (weights_inside(path) == 0) == (limit == 1)
        scores.append(OnnxRuntimeRanker(path, tokenizer).score(PAIRS))
    np.testing.assert_array_equal(*scores)


def test_a_whole_repository_scores_the_same_with_external_data(
    written: Path, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    small, configs = tmp_path / "small", [DynamicQuantizationConfig(), WeightQuantizationConfig(bits=4)]
    files = RankerQuantizer(make_pico(num_hidden_layers=LAYERS), tokenizer).quantize(
        small, configs, PAIRS, progress=False
    )
    for file in (ONNX_FP32, *(str(path.relative_to(small)) for path in files)):
        scores = [load_ranker(folder, file=file).score(PAIRS) for folder in (small, written)]
        np.testing.assert_array_equal(*scores)


def test_the_names_are_those_that_clients_ask_for(written: Path) -> None:
    names = sorted(path.name for path in (written / "onnx").iterdir())
    assert names == ["model.onnx", "model.onnx_data", "model_quantized.onnx", "model_quantized.onnx_data"]
    assert all(matches(f"onnx/{name}", GENERATED) for name in names)
    tensors = onnx.load(written / ONNX_FP32, load_external_data=False).graph.initializer
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in tensors if tensor.external_data]
    assert places and {place["location"] for place in places} == {"model.onnx_data"}  # relative, and beside the graph
    assert {int(place["offset"]) % onnx_backend.ALIGNMENT for place in places} == {0}
    assert (written / ONNX_FP32).stat().st_mode == data_file(written / ONNX_FP32).stat().st_mode


def test_config_json_names_them_for_transformers_js(written: Path) -> None:
    config = json.loads((written / "config.json").read_text(encoding="utf-8"))
    graphs = {"model.onnx": 1, "model_quantized.onnx": 1}
    assert config["transformers.js_config"] == {"use_external_data_format": graphs}
    assert getattr(AutoConfig.from_pretrained(written), "transformers.js_config") == config["transformers.js_config"]


def test_config_json_names_no_graphs_of_the_original_model(folder: Path) -> None:
    """Clients would otherwise ask for files that only the original has."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    settings = {"dtype": "q8", "use_external_data_format": {"model_fp16.onnx": 2}}
    path.write_text(json.dumps({**config, "transformers.js_config": settings}), encoding="utf-8")
    record_external_data(folder)
    graphs = {"model.onnx": 1, "model_quantized.onnx": 1}
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found == {**config, "transformers.js_config": {"dtype": "q8", "use_external_data_format": graphs}}
    for graph in graphs:
        data_file(folder / "onnx" / graph).unlink()
    record_external_data(folder)
    assert json.loads(path.read_text(encoding="utf-8")) == {**config, "transformers.js_config": {"dtype": "q8"}}


def test_the_limit_is_that_of_protobuf_with_room_for_the_graph() -> None:
    assert 0.9 * 2**31 < onnx_backend.EXTERNAL_DATA_FROM < 2**31 - 10**8


def test_a_graph_above_the_real_limit(tmp_path: Path) -> None:
    """2.2 GB of zeros, which the file system stores as a hole: what `SerializeToString` refused."""

    class Zeros(onnx_ir.TensorProtocol):
        name, dtype, doc_string = "weight", onnx_ir.DataType.FLOAT, None
        shape = onnx_ir.Shape([550_000, 1000])
        nbytes, size = 2_200_000_000, 550_000_000
        meta, metadata_props = {}, {}

        def numpy(self) -> np.ndarray:
            return np.broadcast_to(np.float32(0), (550_000, 1000))

        __array__ = numpy

        def tobytes(self) -> bytes:
            raise AssertionError("never as a whole in memory")

        def tofile(self, file) -> None:  # type: ignore[no-untyped-def]
            file.truncate(file.tell() + self.nbytes)

    tensor = Zeros()
    weight = onnx_ir.Value(name="weight", shape=tensor.shape, type=onnx_ir.TensorType(tensor.dtype), const_value=tensor)
    ids = onnx_ir.Value(name="ids", shape=onnx_ir.Shape(["n"]), type=onnx_ir.TensorType(onnx_ir.DataType.INT64))
    node = onnx_ir.node("Gather", [weight, ids])
    node.outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    graph = onnx_ir.Graph(
        [ids], [node.outputs[0]], nodes=[node], initializers=[weight], opset_imports={"": 18}, name="large"
    )
    path = onnx_backend.save_onnx(onnx_ir.Model(graph, ir_version=10), tmp_path / "model.onnx")
    assert size_of(graph_files(path)) > 2**31 and path.stat().st_size < 1000
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.run(None, {"ids": np.array([549_999])})[0].tolist() == [[0.0] * 1000]


def test_writing_again_leaves_no_data_of_the_graph_before(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, path = exported[1], tmp_path / "model.onnx"
    for limit, files in ((1, ["model.onnx", "model.onnx_data"]), (1 << 31, ["model.onnx"])) * 2:
        limit_graphs(monkeypatch, limit)
        onnx_backend.save_onnx(graph, path)
        assert sorted(file.name for file in tmp_path.iterdir()) == files
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_a_failure_keeps_the_graph_before(
    large: None, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, path = exported[1], tmp_path / "model.onnx"
    onnx_backend.save_onnx(graph, path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        onnx_backend.save_onnx(graph, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_sizes_and_fingerprints_include_the_data(folder: Path) -> None:
    files = Candidate.graph(folder, DynamicQuantizationConfig(), "student").files()
    assert {folder / ONNX_INT8, data_file(folder / ONNX_INT8)} <= set(files) and all(file.is_file() for file in files)
    before = model_fingerprint(str(folder), ONNX_INT8)
    data = data_file(folder / ONNX_INT8)
    data.write_bytes(data.read_bytes()[:-1] + b"\x7f")
    assert model_fingerprint(str(folder), ONNX_INT8) != before


@pytest.mark.parametrize("location", ["weights.bin", "model.onnx.data", "data/all"])
def test_graphs_of_other_tools_name_their_data_as_they_like(location: str, folder: Path) -> None:
    path, scores = folder / ONNX_FP32, load_ranker(folder, file=ONNX_FP32).score(PAIRS)
    (path.parent / location).parent.mkdir(exist_ok=True)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=location, size_threshold=2048)
    assert graph_files(path) == [path, path.parent / location]
    data_file(path).unlink(missing_ok=True)
    np.testing.assert_allclose(load_ranker(folder, file=ONNX_FP32).score(PAIRS), scores, atol=1e-5)


def test_a_fresh_process_opens_both_files(folder: Path) -> None:
    ranker = load_ranker(folder, "onnxruntime", options=RankerOptions(threads=1))
    assert measure_cold_start(ranker, str(folder), "onnxruntime", ONNX_INT8, PAIRS) is not None


def test_latency_is_measured_on_graphs_with_external_data(
    large: None, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    deployment = Deployment("onnxruntime", DynamicQuantizationConfig(), RankerOptions(threads=1))
    ranker = deploy(
        make_pico(num_hidden_layers=LAYERS), tokenizer, deployment, calibration_batches(tokenizer, PAIRS), tmp_path
    )
    assert data_file(tmp_path / "model.onnx").is_file() and np.isfinite(ranker.score(PAIRS)).all()


@pytest.mark.parametrize("damage", ["missing", "truncated", "pointer"])
def test_damaged_data_is_named(damage: str, folder: Path) -> None:
    data = data_file(folder / ONNX_INT8)
    content = {"truncated": data.read_bytes()[:100], "pointer": b"version https://git-lfs.github.com/spec/v1\n"}
    data.unlink()
    if damage in content:
        data.write_bytes(content[damage])
    with pytest.raises(ModelError, match=r"model_quantized\.onnx cannot be opened.*copy the external data too"):
        load_ranker(folder, file=ONNX_INT8)
