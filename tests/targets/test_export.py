"""`export` records what it exported, and replaces nothing but its own folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from report_samples import example_artifact, example_delta, example_report
from target_samples import PAIRS, console_requests, run_files
from transformers import AutoConfig

from hfcompress.data.score_text import record_score_text
from hfcompress.errors import DataError, ModelError, OutputError
from hfcompress.recipe import ScoreText
from hfcompress.targets.export import export


def test_the_record_says_which_graph_and_why(
    encoder: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(encoder("bert"), tmp_path / "copy")
    artifacts = [
        example_artifact("fast-int8", "openvino", 5.0, example_delta(0.001, "non-inferior"), path="openvino/model.xml"),
        example_artifact("exact", "onnxruntime", 2.0, example_delta(0.1, "inferior"), path="onnx/model.onnx"),
    ]
    example_report(artifacts=artifacts, sequence=["fast-int8", "exact"], name="my-run").save(folder)
    export(str(folder), "opensearch", tmp_path / "out", max_length=16)
    record = json.loads((tmp_path / "out/export.json").read_text())
    assert record["graph"] == "onnx/model.onnx" and record["verdict"] == "inferior" and record["model"] == "my-run"
    instead = "the report deploys fast-int8, which is not for ONNX Runtime"
    assert record["reason"] == f"{instead}; exact is the first one that is"
    assert record["max_length"] == 16 and record["activation"] == "Sigmoid" and "3.9" in record["documentation"]
    assert record["reason"] in (tmp_path / "out/README.md").read_text()
    assert "exact was not shown to rank as well: inferior" in caplog.text
    assert str(tmp_path) not in (tmp_path / "out/export.json").read_text()


def test_without_a_graph_the_checkpoint_is_exported(cross_encoder: Path, tmp_path: Path) -> None:
    choice = export(str(cross_encoder), "tei", tmp_path / "out")
    assert choice.path is None and choice.precision == "fp32"
    assert len(run_files(tmp_path / "out/onnx/model.onnx", tmp_path / "out/tokenizer.json", PAIRS)) == len(PAIRS)


def test_only_own_folders_are_replaced(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    folder, out = shutil.copytree(encoder("bert"), tmp_path / "models" / "bert"), tmp_path / "out"
    export(str(folder), "opensearch", out)
    export(str(folder), "vespa", out)  # an earlier export is replaced
    assert (out / "services.xml").is_file() and not (out / "register.json").exists()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds something else.*Remedy: name another folder"):
        export(str(folder), "tei", foreign)
    assert [path.name for path in foreign.iterdir()] == ["notes.txt"]
    (folder.parent / "export.json").write_text("{}")
    with pytest.raises(OutputError, match="holds the model"):
        export(str(folder), "tei", folder.parent)
    assert folder.is_dir()


def test_what_cannot_be_exported_is_refused_first(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"opensearch, elasticsearch, vespa, tei.*Remedy: correct --to"):
        export(str(encoder("bert")), "solr", out)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="correct --file"):
        export(str(encoder("bert")), "tei", out, file="onnx/none.onnx")
    with pytest.raises(ModelError):
        export(str(tmp_path / "missing"), "tei", out)
    folder = shutil.copytree(encoder("bert"), tmp_path / "scores")
    config = AutoConfig.from_pretrained(folder)
    record_score_text(config, ScoreText())
    config.save_pretrained(folder)
    with pytest.raises(DataError, match="reads the BM25 score of every document"):
        export(str(folder), "tei", out)
    assert not out.exists()


def test_a_prompt_stands_before_the_query(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(encoder("bert"), tmp_path / "copy")
    path = folder / "config_sentence_transformers.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "prompts": {"query": "ba de "}, "default_prompt_name": "query"}))
    for target in ("opensearch", "elasticsearch", "vespa", "tei"):
        export(str(folder), target, tmp_path / target)  # type: ignore[arg-type]
    requests = console_requests((tmp_path / "opensearch/requests.txt").read_text())
    assert requests[-1][2]["ext"]["rerank"]["query_context"]["query_text"].startswith("ba de how")  # type: ignore[index]
    search = console_requests((tmp_path / "elasticsearch/requests.txt").read_text())[-1][2]
    assert search and search["retriever"]["text_similarity_reranker"]["inference_text"].startswith("ba de how")
    query = json.loads((tmp_path / "vespa/query.json").read_text())
    assert query["rerank_query"] == "ba de " + query["query"]
    assert query["input.query(q_tokens)"] == "embed(tokenizer, @rerank_query)"
    assert "Put `ba de ` before each query" in (tmp_path / "tei/README.md").read_text()
