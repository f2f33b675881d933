"""Batch invariance: drift in units of the scores' spread, by batch and by padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import WORDS
from transformers import BertTokenizerFast

from hfcompress.evaluation.batch_invariance import DOCUMENTS, QUERIES, drift, measure_batch_invariance
from hfcompress.models.layout import ONNX_INT8
from hfcompress.rankers.base import BatchedRanker, RankerOptions
from hfcompress.rankers.load import load_ranker

LISTS = [[(query, " ".join(WORDS[place : place + 1 + place % 11])) for place in range(20)] for query in WORDS[:10]]


def test_drift_by_hand() -> None:
    alone = np.array([3.0, 1.0, 2.0, 5.0, 4.0], dtype=np.float32)
    other = np.array([3.0, 2.0, 1.5, 4.0, 4.5], dtype=np.float32)
    found = drift(alone, other, [3, 2])  # rankings 0 > 2 > 1 and 3 > 4, of which 2 > 1 and 3 > 4 change places
    spread = np.std(alone)
    assert found.largest == pytest.approx(1 / spread)
    assert found.mean == pytest.approx(np.mean([0, 1, 0.5, 1, 0.5]) / spread)
    assert found.swapped_share == pytest.approx(2 / 3)


def test_drift_where_there_is_nothing_to_order() -> None:
    constant = np.ones(3, dtype=np.float32)
    assert drift(constant, constant + 1, [3]).model_dump() == {"largest": 1.0, "mean": 1.0, "swapped_share": 0.0}
    assert drift(constant[:0], constant[:0], []).model_dump() == {"largest": 0.0, "mean": 0.0, "swapped_share": 0.0}
    assert drift(np.array([1.0, 2.0]), np.array([1.0, 1.0]), [2]).swapped_share == 0.0  # a tie is no swap


class Seen(BatchedRanker):
    """Scores a pair by its length in tokens, and writes down the shapes of the batches."""

    def __init__(self, tokenizer: BertTokenizerFast) -> None:
        super().__init__("seen", tokenizer, options=RankerOptions(1))
        self.shapes: list[tuple[int, int]] = []

    def forward(self, batches):
        for batch in batches:
            self.shapes.append(batch["input_ids"].shape)
            yield batch["attention_mask"].sum(1).astype(np.float32)


def test_pairs_are_scored_alone_and_under_more_padding(tokenizer: BertTokenizerFast) -> None:
    ranker = Seen(tokenizer)
    pairs = LISTS[0]
    lengths = ranker.score(pairs)
    ranker.shapes.clear()
    assert ranker.score_in_batches(pairs, 1).tolist() == lengths.tolist()
    assert ranker.shapes == [(1, length) for length in lengths]
    ranker.shapes.clear()
    assert ranker.score_in_batches(pairs, 8, 2.0).tolist() == lengths.tolist()
    assert [rows for rows, _ in ranker.shapes] == [8, 8, 4]
    longest = [int(max(lengths[start : start + 8])) for start in (0, 8, 16)]
    assert [columns for _, columns in ranker.shapes] == [min(2 * length, 32) for length in longest]
    assert ranker.score_in_batches([], 8).shape == (0,)


def test_fp32_does_not_drift_and_dynamic_int8_does(repository: Path) -> None:
    exact = measure_batch_invariance(load_ranker(repository, "torch"), LISTS)
    assert exact.pairs == QUERIES * DOCUMENTS and exact.rank_correlation is None
    assert max(exact.batched.largest, exact.padded.largest) < 1e-4 and exact.padded.swapped_share == 0
    int8 = measure_batch_invariance(load_ranker(repository, "onnxruntime", ONNX_INT8), LISTS, 0.97)
    assert int8.rank_correlation == 0.97
    assert 1e-3 < int8.padded.mean < int8.padded.largest < 1
    assert 0 < int8.batched.mean < int8.batched.largest < 1
