"""Training data of the pico models, made once for all tests of trainings."""

from __future__ import annotations

import pytest
from conftest import make_pico
from datasets import Dataset
from script_inputs import labelled_pairs, tokenized
from transformers import BertTokenizerFast

from hfcompress.data.lists import training_lists, with_scores
from hfcompress.data.ranking import RankingData
from hfcompress.rankers.pytorch import TorchRanker


@pytest.fixture(scope="session")
def lists(word_data: RankingData, tokenizer: BertTokenizerFast) -> Dataset:
    """40 lists of 4 documents with labels and a teacher's scores."""
    teacher = TorchRanker(make_pico(seed=3), tokenizer)
    return with_scores(training_lists(word_data, 4, 1, seed=0), teacher, progress=False)


@pytest.fixture(scope="session")
def pairs(word_data: RankingData, tokenizer: BertTokenizerFast) -> Dataset:
    """160 tokenized pairs with labels: 20 steps of 8."""
    return tokenized(labelled_pairs(word_data), tokenizer)
