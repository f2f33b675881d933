"""A pico model, pairs of texts, and calls of `score_file` with them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SIGMOID, WORDS, make_pico
from transformers import BertTokenizerFast

from hfcompress.evaluation.systems import resolve_model
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.rankers.base import BatchedRanker, Pair, RankerOptions
from hfcompress.rankers.load import load_ranker
from hfcompress.scoring.opening import ScoreSettings
from hfcompress.scoring.score import ScoreSummary, score_file

CHUNK = 8
Score = Callable[..., ScoreSummary]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: BertTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("scoring") / "model"
    save_checkpoint(folder, make_pico(), tokenizer, SIGMOID, 32)
    return folder


@pytest.fixture(scope="session")
def ranker(model_folder: Path) -> BatchedRanker:
    return load_ranker(model_folder, options=RankerOptions(1))


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    rng = random.Random(0)
    return [(" ".join(rng.choices(WORDS, k=4)), " ".join(rng.choices(WORDS, k=rng.randint(1, 40)))) for _ in range(30)]


@pytest.fixture(scope="session")
def scores(ranker: BatchedRanker, pairs: list[Pair]) -> np.ndarray:
    return ranker.score(pairs)


@pytest.fixture
def score(model_folder: Path) -> Score:
    """Scores a file with these settings, in chunks of `CHUNK` pairs."""
    candidate = resolve_model(str(model_folder), "model", device="cpu")

    def call(source: Path, target: Path, **settings: Any) -> ScoreSummary:
        common = ScoreSettings(chunk_pairs=CHUNK, progress=False)
        return score_file(candidate, source, target, replace(common, **settings), RankerOptions(1, cache_bytes=10**6))

    return call
