"""Loading a ranker: activation, maximum length, and the errors for folders that cannot be loaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import WORDS, make_pico
from transformers import BertTokenizerFast

from hfcompress.errors import ModelError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.layout import OPENVINO_INT8
from hfcompress.rankers.load import load_ranker

PAIRS = [(" ".join(WORDS[n : n + 3]), " ".join(WORDS[2 * n : 2 * n + 1 + n % 9])) for n in range(25)]


def test_long_pairs_are_truncated_to_the_models_length(cross_encoder: Path) -> None:
    long = " ".join(WORDS) * 3
    assert np.isfinite(load_ranker(cross_encoder).score([(long, long)])).all()
    with pytest.raises(ModelError, match="max_length"):
        load_ranker(cross_encoder, max_length=1000)


@pytest.mark.parametrize("labels", [2, 3])
def test_classifiers_with_several_labels_cannot_rank(labels: int, tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    save_checkpoint(tmp_path, make_pico(num_labels=labels), tokenizer, "torch.nn.modules.linear.Identity", 32)
    with pytest.raises(ModelError, match="num_labels=1"):
        load_ranker(tmp_path)


def test_only_known_activations_are_allowed(cross_encoder: Path) -> None:
    config = json.loads((cross_encoder / "config.json").read_text())
    config["sentence_transformers"]["activation_fn"] = "os.system"
    (cross_encoder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"os\.system"):
        load_ranker(cross_encoder)


def test_missing_graph_is_named(cross_encoder: Path) -> None:
    with pytest.raises(ModelError, match=r"model_quantized\.onnx"):
        load_ranker(cross_encoder, "onnxruntime")


def test_openvino_graph_without_its_weights_is_named(cross_encoder: Path) -> None:
    graph = cross_encoder / OPENVINO_INT8
    graph.parent.mkdir()
    graph.write_text("<net/>", encoding="utf-8")
    with pytest.raises(ModelError, match=r"openvino_model_qint8_quantized\.bin"):
        load_ranker(cross_encoder, "openvino")


def test_sentence_transformers_scores_alike(cross_encoder: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.CrossEncoder(str(cross_encoder), device="cpu")
    assert model.max_seq_length == 32
    ours = load_ranker(cross_encoder)
    np.testing.assert_allclose(model.predict(PAIRS), ours.activation(ours.score(PAIRS)), atol=1e-5)
