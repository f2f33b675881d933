"""The graph that represents a model: what the report deploys, or the nearest that ONNX Runtime runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_samples import example_artifact, example_delta, example_report
from target_samples import write_encoder
from transformers import BertTokenizerFast

from hfcompress.errors import DataError, ModelError
from hfcompress.report.report import Artifact
from hfcompress.targets.source import choose_graph, read_source, require_even

PATHS = {
    "dynamic": "onnx/model_quantized.onnx", "static": "onnx/model_qint8_static.onnx",
    "openvino": "openvino/openvino_model_qint8_quantized.xml", "torch": "model.safetensors",
}  # fmt: skip


def artifact(kind: str, speedup: float, precision: str = "int8-static") -> Artifact:
    runtime = {"openvino": "openvino", "torch": "torch"}.get(kind, "onnxruntime")
    delta = example_delta(0.001, "non-inferior")
    return example_artifact(kind, runtime, speedup, delta, path=PATHS[kind], precision=precision)


def with_report(folder: Path, artifacts: list[Artifact], sequence: list[str]) -> str:
    for path in ("onnx/model.onnx", *(each.path for each in artifacts)):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
    example_report(artifacts=artifacts, sequence=sequence, name="My Run 1").save(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("deployed", "sequence", "chosen"),
    [
        ("dynamic", ["dynamic", "static", "openvino"], "dynamic"),
        ("static", ["static", "dynamic", "openvino"], "static"),
        ("openvino", ["openvino", "static", "dynamic"], "static"),
        ("openvino", ["openvino", "dynamic"], "dynamic"),
    ],
)
def test_what_the_report_deploys_comes_first(
    deployed: str, sequence: list[str], chosen: str, cross_encoder: Path
) -> None:
    artifacts = [artifact("dynamic", 4.0), artifact("static", 3.0), artifact("openvino", 5.0)]
    source = read_source(with_report(cross_encoder, artifacts, sequence))
    choice = choose_graph(source)
    assert choice.path == PATHS[chosen] and deployed in choice.reason and chosen in choice.reason
    assert choice.artifact and choice.artifact.name == chosen and choice.precision == "int8-static"
    assert source.title == "my-run-1"


def test_a_deployed_model_in_fp32_stays_in_fp32(cross_encoder: Path) -> None:
    artifacts = [artifact("torch", 2.0, "fp32"), artifact("dynamic", 4.0)]
    choice = choose_graph(read_source(with_report(cross_encoder, artifacts, ["torch", "dynamic"])))
    assert choice.path == "onnx/model.onnx" and choice.precision == "fp32"
    (cross_encoder / "onnx/model.onnx").unlink()
    choice = choose_graph(read_source(str(cross_encoder)))
    assert choice.path is None and "exported to fp32" in choice.reason


def test_without_a_report(cross_encoder: Path) -> None:
    choice = choose_graph(read_source(str(cross_encoder)))
    assert choice.path is None and choice.precision == "fp32"
    for path, precision in (("onnx/model.onnx", "fp32"), ("onnx/model_quantized.onnx", "int8")):
        (cross_encoder / path).parent.mkdir(exist_ok=True)
        (cross_encoder / path).touch()
        choice = choose_graph(read_source(str(cross_encoder)))
        assert choice.path == path and choice.precision == precision
    assert choose_graph(read_source(str(cross_encoder)), "onnx/model.onnx").path == "onnx/model.onnx"
    with pytest.raises(DataError, match=r"onnx/model.onnx.*Remedy: correct --file"):
        choose_graph(read_source(str(cross_encoder)), "onnx/other.onnx")


def test_tokenizer_of_a_source(cross_encoder: Path) -> None:
    source = read_source(str(cross_encoder), max_length=16)
    assert source.max_length == 16 and source.activation == "Sigmoid" and not source.modular
    assert '"max_length": 16' in source.tokenizer_json(truncate=True)
    assert '"truncation": null' in source.tokenizer_json(truncate=False)


def test_uneven_layers_need_their_own_code(cross_encoder: Path, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    require_even(read_source(str(cross_encoder)), "Eland")
    uneven = write_encoder(tmp_path / "uneven", tokenizer, "uneven")
    with pytest.raises(ModelError, match=r"heads or FFN width.*Remedy: prune with prune.structure: stock"):
        require_even(read_source(str(uneven)), "Eland")
