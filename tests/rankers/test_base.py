"""Batching does not change scores, and `rank` orders documents and applies the activation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from conftest import WORDS, make_pico
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizerFast

from hfcompress.rankers.base import Ranker, RankerOptions
from hfcompress.rankers.batches import batches_of
from hfcompress.rankers.load import load_ranker
from hfcompress.rankers.pytorch import TorchRanker

PAIRS = [(" ".join(WORDS[n : n + 3]), " ".join(WORDS[2 * n : 2 * n + 1 + n % 9])) for n in range(25)]


def test_scores_do_not_depend_on_batches(tokenizer: BertTokenizerFast) -> None:
    model = make_pico()
    alone = TorchRanker(model, tokenizer, options=RankerOptions(1, 1)).score(PAIRS)
    together = TorchRanker(model, tokenizer, options=RankerOptions(1, 10_000)).score(PAIRS)
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert np.std(alone) > 1e-3
    one_by_one = [TorchRanker(model, tokenizer).score([pair])[0] for pair in PAIRS]
    np.testing.assert_allclose(one_by_one, together, atol=1e-5)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=200), st.integers(1, 5000), st.integers(1, 8))
def test_batches_hold_every_pair_once_within_the_budget(lengths: list[int], budget: int, parallel: int) -> None:
    batches = list(batches_of(np.array(lengths), budget, parallel))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
    if len(lengths) >= 4 * parallel and len(set(lengths)) == 1:
        assert len(batches) >= parallel


@given(st.lists(st.integers(1, 512), min_size=1, max_size=200), st.integers(1, 5000), st.integers(1, 8))
def test_batches_of_few_shapes(lengths: list[int], budget: int, parallel: int) -> None:
    batches = list(batches_of(np.array(lengths), budget, parallel, few_shapes=True))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for batch in batches:
        longest = -(-max(lengths[index] for index in batch) // 16) * 16
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
    ranker = Shapes(model, tokenizer, options=RankerOptions(1, 256))
    np.testing.assert_allclose(ranker.score(PAIRS), TorchRanker(model, tokenizer).score(PAIRS), atol=1e-5)
    assert ranker.shapes == {(16, 16), (8, 16), (1, 16)}
    longest = (" ".join(WORDS), " ".join(WORDS))
    ranker.score([longest])
    assert ranker.shapes == {(1, tokenizer.model_max_length)}
    ranker.tokenizer = copy.deepcopy(tokenizer)
    ranker.tokenizer.model_max_length = 27  # no multiple, and as far as the model reads
    assert np.isfinite(ranker.score([longest])).all() and ranker.shapes == {(1, 27)}


def test_batches_are_those_of_score(tokenizer: BertTokenizerFast) -> None:
    ranker = TorchRanker(make_pico(), tokenizer, options=RankerOptions(1, 64))
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
