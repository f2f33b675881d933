"""What is written for Elasticsearch opens in stock classes of transformers; what Eland cannot open is refused."""

from __future__ import annotations

import json
import os
import shlex
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from modular_samples import write_modular
from target_samples import PAIRS, console_requests, write_encoder
from tokenizers import BertWordPieceTokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertTokenizerFast

from hfcompress.errors import DataError, ModelError
from hfcompress.rankers.load import load_ranker
from hfcompress.targets.export import export


def test_the_checkpoint_scores_as_the_ranker(cross_encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(str(cross_encoder), "elasticsearch", out)
    model = AutoModelForSequenceClassification.from_pretrained(out / "model").eval()
    assert type(model).__name__ == "BertForSequenceClassification" and model.config.num_labels == 1
    assert model.dtype == torch.float32
    words = AutoTokenizer.from_pretrained(out / "model")
    features = words(*map(list, zip(*PAIRS, strict=True)), padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        scores = model(**features).logits[:, 0].numpy()
    np.testing.assert_allclose(scores, load_ranker(cross_encoder, "torch").score(PAIRS), atol=1e-4)
    rewritten = np.maximum(scores, 0) + np.minimum(np.exp(scores), 1)
    assert (np.argsort(rewritten) == np.argsort(scores)).all()


def test_the_vocabulary_is_that_of_the_tokenizer(cross_encoder: Path, tmp_path: Path) -> None:
    export(str(cross_encoder), "elasticsearch", tmp_path / "out")
    folder = tmp_path / "out" / "model"
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "BertTokenizer" and settings["model_max_length"] == 32
    assert settings["do_lower_case"] is True
    python = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=settings["do_lower_case"])
    fast = AutoTokenizer.from_pretrained(folder)
    for query, document in PAIRS[:3]:
        assert python.encode(query, document).ids == fast(query, document)["input_ids"]


def test_the_command_and_the_requests(cross_encoder: Path, tmp_path: Path) -> None:
    export(str(cross_encoder), "elasticsearch", tmp_path / "out")
    script = tmp_path / "out" / "upload.sh"
    assert os.access(script, os.X_OK)
    (command,) = (line for line in script.read_text().replace("\\\n", "").split("\n") if line.startswith("eland"))
    words = shlex.split(command)
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert words[0] == "eland_import_hub_model" and options["--task-type"] == "text_similarity"
    assert (tmp_path / "out" / options["--hub-model-id"] / "config.json").is_file()
    name = options["--es-model-id"]
    (_, path, endpoint), (_, _, search) = console_requests((tmp_path / "out" / "requests.txt").read_text())
    assert path == f"/_inference/rerank/{name}" and endpoint and search
    assert endpoint["service"] == "elasticsearch" and endpoint["service_settings"]["model_id"] == name
    retriever = search["retriever"]["text_similarity_reranker"]
    assert set(retriever) == {"retriever", "field", "inference_id", "inference_text", "rank_window_size"}
    assert retriever["inference_id"] == name
    assert "max(s, 0) + min(exp(s), 1)" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("uneven", "layers of one size"),
        ("modular", "a modular cross-encoder"),
        ("roberta", "a WordPiece tokenizer in the family roberta"),
        ("modernbert", "the family modernbert"),
        ("xlm-roberta", "no sentencepiece.bpe.model in the folder"),
    ],
)
def test_what_eland_cannot_open_is_refused(
    kind: str, problem: str, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    write = write_modular if kind == "modular" else partial(write_encoder, family=kind)
    folder = write(tmp_path / "model", tokenizer)
    with pytest.raises(ModelError, match=problem):
        export(str(folder), "elasticsearch", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_graph_cannot_be_chosen(cross_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"runs no ONNX graph.*Remedy: leave --file out"):
        export(str(cross_encoder), "elasticsearch", tmp_path / "out", file="onnx/model.onnx")
