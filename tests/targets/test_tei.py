"""What is written for text-embeddings-inference has the layout of its ONNX backend, and raw logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from modular_samples import write_modular
from target_samples import PAIRS, run_files
from transformers import AutoModelForSequenceClassification, BertTokenizerFast

from hfcompress.errors import ModelError
from hfcompress.rankers.load import load_ranker
from hfcompress.targets.export import export
from hfcompress.targets.tei import _require_output


def check_layout(out: Path, architecture: str) -> None:
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == [architecture] and config["id2label"] == {"0": "LABEL_0"}
    assert config["label2id"] == {"LABEL_0": 0} and "auto_map" not in config
    for name in ("max_position_embeddings", "pad_token_id", "hidden_size", "num_hidden_layers"):
        assert isinstance(config[name], int)
    assert json.loads((out / "sentence_bert_config.json").read_text())["max_seq_length"] == 32
    assert json.loads((out / "tokenizer_config.json").read_text())["padding_side"] == "right"
    assert not (out / "modules.json").exists()
    (output,) = onnx.load(out / "onnx/model.onnx").graph.output
    assert output.name == "logits" and output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_a_stock_model_has_graph_and_weights(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    folder, out = encoder("roberta"), tmp_path / "out"
    export(str(folder), "tei", out)
    check_layout(out, "RobertaForSequenceClassification")
    ranker = load_ranker(folder, file="onnx/model.onnx")
    found = run_files(out / "onnx/model.onnx", out / "tokenizer.json", PAIRS[:3])
    np.testing.assert_allclose(found, ranker.score(PAIRS[:3]), atol=1e-4)
    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert type(model).__name__ == "RobertaForSequenceClassification"
    assert "GPUs build the model with candle" in (out / "README.md").read_text()


def test_an_uneven_model_has_its_graph_alone(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    folder, out = encoder("uneven"), tmp_path / "out"
    export(str(folder), "tei", out)
    check_layout(out, "BertForSequenceClassification")
    assert not list(out.glob("*.safetensors")) and not list(out.glob("*.py"))
    assert (out / "onnx/model.onnx").read_bytes() == (folder / "onnx/model.onnx").read_bytes()
    readme = (out / "README.md").read_text()
    assert "the CPU alone" in readme and "raw_scores: true" in readme  # the checkpoint applies no activation


def test_a_modular_model_has_the_class_of_a_reranker(tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    folder = write_modular(tmp_path / "model", tokenizer, max_length=32)
    export(str(folder), "tei", tmp_path / "out")
    check_layout(tmp_path / "out", "BertForSequenceClassification")
    assert not list((tmp_path / "out").glob("*.safetensors"))
    found = run_files(tmp_path / "out/onnx/model.onnx", tmp_path / "out/tokenizer.json", PAIRS[:3])
    np.testing.assert_allclose(found, load_ranker(folder, "torch").score(PAIRS[:3]), atol=1e-4)


def test_distilbert_has_the_names_that_the_server_reads(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    export(str(encoder("distilbert")), "tei", tmp_path / "out")
    check_layout(tmp_path / "out", "DistilBertForSequenceClassification")
    assert not list((tmp_path / "out").glob("*.safetensors"))  # candle has no head for this family


def test_another_output_is_refused(tmp_path: Path) -> None:
    graph = onnx.helper.make_graph([], "g", [], [onnx.helper.make_tensor_value_info("score", 1, [1, 1])])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"score.*Expected: one output, logits"):
        _require_output(tmp_path / "model.onnx")
