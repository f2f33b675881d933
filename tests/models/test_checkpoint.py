"""Saved checkpoints have the files that other loaders read; scripts/check_clients.py runs the loaders."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from conftest import FAMILIES, SIGMOID, WORDS, make_pico, uneven_plan
from tokenizers import Tokenizer
from transformers import BertTokenizerFast

from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.positions import position_limit
from hfcompress.models.surgery import apply_plan
from hfcompress.rankers.load import load_ranker

DOCUMENTS = [" ".join(WORDS[start : start + 1 + start % 7]) for start in range(12)]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("family", FAMILIES)
def test_files_for_text_embeddings_inference(family: str, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    copy = BertTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    model = apply_plan(make_pico(family), uneven_plan())
    save_checkpoint(tmp_path, model, copy, SIGMOID, 514)
    config = read(tmp_path / "config.json")
    # A classifier with one label is a reranker there; both maps are required, by their names.
    assert all(name.endswith("Classification") for name in config["architectures"]) and config["architectures"]
    assert config["id2label"] == {"0": "LABEL_0"} and config["label2id"] == {"LABEL_0": 0}
    assert config["model_type"] == family
    assert isinstance(config["max_position_embeddings"], int) and isinstance(config["pad_token_id"], int)
    # Its own offset of families that number positions from the padding token has to give the length written here.
    offset = config["pad_token_id"] + 1 if position_limit(model.config) == 512 else 0
    longest = read(tmp_path / "sentence_bert_config.json")["max_seq_length"]
    assert longest == config["max_position_embeddings"] - offset
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert backend.truncation is None and backend.padding is None  # the server sets its own
    assert backend.encode("ba de", "fi").ids == copy("ba de", "fi")["input_ids"]
    assert backend.token_to_id("[PAD]") is not None


def test_files_that_loaders_look_for(repository: Path) -> None:
    settings = read(repository / "tokenizer_config.json")
    assert settings["model_max_length"] == 32 and settings["pad_token"] == "[PAD]"  # FlashRank, fastembed
    assert all(isinstance(token, str) for token in read(repository / "special_tokens_map.json").values())
    assert read(repository / "config.json")["pad_token_id"] == 0
    # text-embeddings-inference and optimum-onnx open the first, transformers.js the second for dtype "q8".
    for name in ("model.onnx", "model_quantized.onnx"):
        session = onnxruntime.InferenceSession(repository / "onnx" / name, providers=["CPUExecutionProvider"])
        assert {node.name for node in session.get_inputs()} == {"input_ids", "attention_mask", "token_type_ids"}
        (output,) = session.get_outputs()
        assert output.name == "logits" and output.shape[1] == 1
        assert all(node.type == "tensor(int64)" for node in session.get_inputs())


def test_sentence_transformers_ranks_with_a_pruned_checkpoint(repository: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.CrossEncoder(str(repository), device="cpu", trust_remote_code=True)
    assert model.max_seq_length == 32 and model.num_labels == 1
    assert re.fullmatch(r"PrunedBertForSequenceClassification", type(model[0].auto_model).__name__)
    ours = load_ranker(repository, "torch").rank("ba de fi", DOCUMENTS, top_k=7)
    theirs = model.rank("ba de fi", DOCUMENTS, top_k=7, return_documents=True)
    assert [hit["corpus_id"] for hit in theirs] == [hit.position for hit in ours]
    assert [hit["text"] for hit in theirs] == [DOCUMENTS[hit.position] for hit in ours]
    np.testing.assert_allclose([hit["score"] for hit in theirs], [hit.score for hit in ours], atol=1e-5)
