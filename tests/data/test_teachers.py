"""Scores of several teachers: scales, weights, the cache of each, and teachers that are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import make_pico
from transformers import BertTokenizerFast

from hfcompress.data.lists import training_lists, with_scores
from hfcompress.data.ranking import RankingData
from hfcompress.data.teachers import Teacher, ensemble_scores, with_teacher_scores
from hfcompress.errors import DataError
from hfcompress.rankers.bm25 import Bm25Ranker
from hfcompress.rankers.pytorch import TorchRanker

RNG = np.random.default_rng(0)
FIRST = [RNG.normal(loc, 2.0, size).tolist() for loc, size in ((5, 4), (-3, 6), (0, 1), (1, 4))]
SECOND = [RNG.normal(40, 30.0, len(values)).tolist() for values in FIRST]


def spread(scores: list[list[float]]) -> float:
    """Variance within a list, mean over all lists."""
    return float(np.mean([np.var(values) for values in scores]))


def test_one_teacher_keeps_its_scores() -> None:
    assert ensemble_scores([FIRST], [0.3]) == FIRST


def test_teachers_are_brought_to_the_scale_of_the_first() -> None:
    alone = ensemble_scores([FIRST, SECOND], [1e-12, 1.0])
    assert spread(alone) == pytest.approx(spread(FIRST))
    for mine, theirs, level in zip(alone, SECOND, FIRST, strict=True):
        assert np.mean(mine) == pytest.approx(np.mean(level))
        centred = np.subtract(theirs, np.mean(theirs))
        assert np.subtract(mine, np.mean(mine)) == pytest.approx(centred * (spread(FIRST) / spread(SECOND)) ** 0.5)


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_weights_mean_the_same_whatever_the_scale_of_a_teacher(factor: float) -> None:
    stretched = [[7 + factor * value for value in values] for values in SECOND]
    expected = ensemble_scores([FIRST, SECOND], [2.0, 1.0])
    for found, wanted in zip(ensemble_scores([FIRST, stretched], [4.0, 2.0]), expected, strict=True):
        assert found == pytest.approx(wanted)
    assert ensemble_scores([FIRST, FIRST], [1.0, 5.0])[1] == pytest.approx(FIRST[1])


def test_weights_decide_between_teachers_that_disagree() -> None:
    up, down = [[0.0, 1.0, 2.0]], [[20.0, 10.0, 0.0]]
    assert np.diff(ensemble_scores([up, down], [3.0, 1.0])[0]) == pytest.approx([0.5, 0.5])
    assert np.diff(ensemble_scores([up, down], [1.0, 3.0])[0]) == pytest.approx([-0.5, -0.5])
    assert np.diff(ensemble_scores([up, down], [1.0, 1.0])[0]) == pytest.approx([0.0, 0.0])


def test_teachers_that_say_nothing_and_weights_that_are_none() -> None:
    level = [[3.0] * len(values) for values in FIRST]
    with pytest.raises(DataError, match="Teacher 2 of 2 gives all documents of a list the same score"):
        ensemble_scores([FIRST, level], [1.0, 1.0])
    with pytest.raises(DataError, match="Teacher 1 of 2"):
        ensemble_scores([level, FIRST], [1.0, 1.0])
    for weights in ([], [1.0, 0.0]):
        with pytest.raises(DataError, match="weights of the teachers are invalid"):
            ensemble_scores([FIRST] * len(weights), weights)


def test_a_cross_encoder_and_bm25(word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    lists = training_lists(word_data, 5, 2, seed=0)
    made: list[str] = []

    def teachers() -> Iterator[Teacher]:
        made.append("cross-encoder")
        yield Teacher(TorchRanker(make_pico(), tokenizer), "pico")
        made.append("bm25")
        yield Teacher(Bm25Ranker(word_data.corpus), "bm25", 0.5)

    scored = with_teacher_scores(lists, teachers(), progress=False, cache=tmp_path)
    assert made == ["cross-encoder", "bm25"] and len(list(tmp_path.iterdir())) == 2
    parts = [
        with_scores(lists, ranker, progress=False)["teacher_scores"][:]
        for ranker in (TorchRanker(make_pico(), tokenizer), Bm25Ranker(word_data.corpus))
    ]
    assert scored["teacher_scores"][0] == pytest.approx(ensemble_scores(parts, [1.0, 0.5])[0], abs=1e-5)
    assert scored.column_names[:-1] == lists.column_names


def test_each_teacher_is_scored_once(word_data: RankingData, tmp_path: Path) -> None:
    class Broken:
        name = "broken"

        def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
            raise RuntimeError("scored")

    lists = training_lists(word_data, 5, 2, seed=0)
    bm25 = Teacher(Bm25Ranker(word_data.corpus), "bm25")
    with pytest.raises(RuntimeError):
        with_teacher_scores(lists, [bm25, Teacher(Broken(), "another")], progress=False, cache=tmp_path)
    again = with_teacher_scores(lists, [Teacher(Broken(), "bm25")], progress=False, cache=tmp_path)
    assert again["teacher_scores"][:] == with_teacher_scores(lists, [bm25], progress=False)["teacher_scores"][:]
