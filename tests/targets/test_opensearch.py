"""What is written for OpenSearch keeps the contract of ML Commons, and gives the scores of `rank`."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from target_samples import PAIRS, console_requests, run_files

from hfcompress.rankers.load import load_ranker
from hfcompress.targets.export import export


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_archive_scores_as_rank(family: str, encoder: Callable[[str], Path], tmp_path: Path) -> None:
    folder, out = encoder(family), tmp_path / "out"
    export(str(folder), "opensearch", out)
    archive = out / f"{family}.zip"
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["README.md", "export.json", "register.json", "requests.txt", archive.name]
    )
    with zipfile.ZipFile(archive) as packed:
        assert packed.namelist() == ["model.onnx", "tokenizer.json"]  # one graph, at the top
        packed.extractall(tmp_path / "unpacked")
    graph = tmp_path / "unpacked" / "model.onnx"
    model = onnx.load(graph)
    # ONNX Runtime 1.16.3 of OpenSearch 3 reads opset 19 and IR version 9 at most.
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)] and model.ir_version <= 9
    inputs = [(value.name, value.type.tensor_type.elem_type) for value in model.graph.input]
    assert inputs == [(name, 7) for name in ("input_ids", "attention_mask", "token_type_ids")]
    shapes = [[dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in model.graph.input]
    assert all(len(shape) == 2 and all(shape) for shape in shapes)  # batch and length are dynamic
    found = run_files(graph, tmp_path / "unpacked" / "tokenizer.json", PAIRS)
    ranker = load_ranker(folder, file="onnx/model.onnx")
    np.testing.assert_allclose(found, ranker.activation(ranker.score(PAIRS)), atol=1e-4)
    assert found.min() > 0 and found.max() < 1


def test_the_register_body(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    export(str(encoder("bert")), "opensearch", tmp_path / "out")
    body = json.loads((tmp_path / "out" / "register.json").read_text())
    archive = (tmp_path / "out" / "bert.zip").read_bytes()
    assert body["function_name"] == "TEXT_SIMILARITY" and body["model_format"] == "ONNX"
    assert body["model_content_size_in_bytes"] == len(archive)
    assert body["model_content_hash_value"] == hashlib.sha256(archive).hexdigest()
    config = body["model_config"]
    assert set(config) == {"model_type", "embedding_dimension", "framework_type", "all_config"}
    assert config["model_type"] == "bert" and config["framework_type"] == "huggingface_transformers"
    assert isinstance(config["embedding_dimension"], int)
    assert json.loads(config["all_config"])["hidden_size"] == 32 and "_name_or_path" not in config["all_config"]
    assert body["name"] == "bert" and body["version"] and body["url"].endswith("/bert.zip")
    export(str(encoder("bert")), "opensearch", tmp_path / "again")
    assert (tmp_path / "again" / "bert.zip").read_bytes() == archive  # the same model has the same hash


def test_the_requests(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    export(str(encoder("bert")), "opensearch", tmp_path / "out")
    requests = console_requests((tmp_path / "out" / "requests.txt").read_text())
    assert [(method, path) for method, path, _ in requests] == [
        ("PUT", "/_cluster/settings"),
        ("POST", "/_plugins/_ml/models/_register"),
        ("GET", "/_plugins/_ml/tasks/TASK_ID"),
        ("POST", "/_plugins/_ml/models/MODEL_ID/_deploy"),
        ("POST", "/_plugins/_ml/_predict/text_similarity/MODEL_ID"),
        ("PUT", "/_search/pipeline/bert"),
        ("GET", "/INDEX/_search?search_pipeline=bert"),
    ]
    bodies = [body for _, _, body in requests]
    assert bodies[1] == json.loads((tmp_path / "out" / "register.json").read_text())
    assert bodies[4] and set(bodies[4]) == {"query_text", "text_docs"}
    assert bodies[5] and bodies[6]
    (processor,) = bodies[5]["response_processors"]
    assert processor["rerank"]["ml_opensearch"] == {"model_id": "MODEL_ID"}
    assert processor["rerank"]["context"] == {"document_fields": ["text"]}
    assert bodies[6]["ext"]["rerank"]["query_context"]["query_text"] == bodies[6]["query"]["match"]["text"]
