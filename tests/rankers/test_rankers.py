"""Rankers: batching does not change scores, rank orders and applies the activation, and what loading refuses."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import WORDS, make_pico
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizerFast

from hfcompress.checkpoint import save_checkpoint
from hfcompress.errors import ModelError
from hfcompress.layout import OPENVINO_INT8
from hfcompress.models import load_model, load_tokenizer
from hfcompress.quantization.onnxruntime import export_onnx, save_onnx
from hfcompress.rankers.base import Ranker, RankerOptions, batches_of
from hfcompress.rankers.load import load_ranker
from hfcompress.rankers.onnxruntime import OnnxRuntimeRanker
from hfcompress.rankers.pytorch import TorchRanker

PAIRS = [(" ".join(WORDS[n : n + 3]), " ".join(WORDS[2 * n : 2 * n + 1 + n % 9])) for n in range(25)]


def test_scores_do_not_depend_on_batches(tokenizer: BertTokenizerFast) -> None:
    model = make_pico()
    alone = TorchRanker(model, tokenizer, lambda logits: logits, RankerOptions(1, 1)).score(PAIRS)
    together = TorchRanker(model, tokenizer, lambda logits: logits, RankerOptions(1, 10_000)).score(PAIRS)
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert np.std(alone) > 1e-3
    one_by_one = [TorchRanker(model, tokenizer, lambda logits: logits).score([pair])[0] for pair in PAIRS]
    np.testing.assert_allclose(one_by_one, together, atol=1e-5)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=200), st.integers(1, 5000), st.integers(1, 8))
def test_batches_hold_every_pair_once_within_the_budget(lengths: list[int], budget: int, parallel: int) -> None:
    batches = list(batches_of(np.array(lengths), budget, parallel))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[place] for place in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
    if len(lengths) >= 4 * parallel and len(set(lengths)) == 1:
        assert len(batches) >= parallel


@given(st.lists(st.integers(1, 512), min_size=1, max_size=200), st.integers(1, 5000), st.integers(1, 8))
def test_batches_of_few_shapes(lengths: list[int], budget: int, parallel: int) -> None:
    batches = list(batches_of(np.array(lengths), budget, parallel, few_shapes=True))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for batch in batches:
        longest = -(-max(lengths[place] for place in batch) // 16) * 16
        assert len(batch).bit_count() == 1 and (len(batch) == 1 or len(batch) * longest <= budget)


def test_workers_share_the_budget() -> None:
    lengths = np.full(1000, 32)
    assert [len(next(batches_of(lengths, 4096, parallel))) for parallel in (1, 2, 4, 8)] == [128, 64, 32, 32]


class Shapes(TorchRanker):
    """Notes what it reads."""

    few_shapes = True

    def forward(self, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
        read = list(batches)
        self.shapes = {batch["input_ids"].shape for batch in read}
        return super().forward(iter(read))


def test_few_shapes_change_no_score(tokenizer: BertTokenizerFast) -> None:
    model = make_pico()
    ranker = Shapes(model, tokenizer, lambda logits: logits, RankerOptions(1, 256))
    np.testing.assert_allclose(
        ranker.score(PAIRS), TorchRanker(model, tokenizer, lambda logits: logits).score(PAIRS), atol=1e-5
    )
    assert ranker.shapes == {(16, 16), (8, 16), (1, 16)}
    longest = (" ".join(WORDS), " ".join(WORDS))
    ranker.score([longest])
    assert ranker.shapes == {(1, tokenizer.model_max_length)}
    ranker.tokenizer = copy.deepcopy(tokenizer)
    ranker.tokenizer.model_max_length = 27  # no multiple, and as far as the model reads
    assert np.isfinite(ranker.score([longest])).all() and ranker.shapes == {(1, 27)}


def test_batches_are_those_of_score(tokenizer: BertTokenizerFast) -> None:
    ranker = TorchRanker(make_pico(), tokenizer, lambda logits: logits, RankerOptions(1, 64))
    found = np.concatenate(list(ranker.forward(ranker.batches(PAIRS))))
    assert len(list(ranker.batches(PAIRS))) > 1 and list(ranker.batches([])) == []
    np.testing.assert_array_equal(np.sort(found), np.sort(ranker.score(PAIRS)))


def test_nothing_to_score(cross_encoder: Path) -> None:
    ranker = load_ranker(cross_encoder)
    assert isinstance(ranker, Ranker)
    assert ranker.score([]).shape == (0,)
    assert ranker.rank("ba", []) == []


def test_rank_orders_and_applies_the_activation(cross_encoder: Path) -> None:
    ranker = load_ranker(cross_encoder)
    documents = [document for _, document in PAIRS]
    logits = ranker.score([("ba be", document) for document in documents])
    hits = ranker.rank("ba be", documents, top_k=5)
    assert [hit.position for hit in hits] == np.argsort(-logits, kind="stable")[:5].tolist()
    np.testing.assert_allclose([hit.score for hit in hits], 1 / (1 + np.exp(np.sort(-logits)[:5])), rtol=1e-5)


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


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_of_onnx_runtime_compute_batches_of_their_own(
    threads: int, cross_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_model(str(cross_encoder)), load_tokenizer(str(cross_encoder))
    save_onnx(export_onnx(model, tokenizer), cross_encoder / "onnx" / "model.onnx")
    monkeypatch.setattr("hfcompress.rankers.base.FEWEST_TOKENS", 32)
    options = RankerOptions(threads, 96)
    ranker = load_ranker(cross_encoder, file="onnx/model.onnx", options=options)
    assert isinstance(ranker, OnnxRuntimeRanker)
    busy, most, lock = 0, 0, threading.Lock()
    logits = ranker._logits

    def counted(batch: dict[str, np.ndarray]) -> np.ndarray:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.02)
        try:
            return logits(batch)
        finally:
            with lock:
                busy -= 1

    monkeypatch.setattr(ranker, "_logits", counted)
    pairs = [(query, document) for query, _ in PAIRS for _, document in PAIRS[:4]]
    np.testing.assert_allclose(ranker.score(pairs), load_ranker(cross_encoder, "torch").score(pairs), atol=1e-4)
    assert most == threads
    assert ranker.score([]).shape == (0,) and ranker.score(pairs[:1]).shape == (1,)


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
