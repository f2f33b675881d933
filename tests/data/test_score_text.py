"""BM25 scores in the texts of pairs: the rule, the scores of any pair, and every place that makes texts."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import pico_config, write_beir
from transformers import BertTokenizerFast

from hfcompress.data.bm25 import K1, B
from hfcompress.data.document import Document
from hfcompress.data.hard_negatives import mine_hard_negatives
from hfcompress.data.lists import training_lists
from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData, Split
from hfcompress.data.score_text import (
    record_score_text,
    score_text_of,
    text_with_score,
    text_without_score,
)
from hfcompress.errors import DataError, ModelError
from hfcompress.pruning.calibration import Calibration
from hfcompress.rankers.bm25 import Bm25Ranker
from hfcompress.recipe import DataStep, ScoreText

SETTINGS = ScoreText(bm25_max=4.0)


@pytest.fixture(scope="module")
def scored(word_data: RankingData) -> RankingData:
    return word_data.with_score_text(SETTINGS)


def expected(data: RankingData, query: str, documents: list[str]) -> list[str]:
    """Texts written with the scores of BM25 as a ranker."""
    texts = [data.corpus[document].content for document in documents]
    scores = Bm25Ranker(data.corpus).score([(data.queries[query], text) for text in texts])
    return [f"{round(100 * min(float(score) / 4, 1))} [SEP] {text}" for text, score in zip(texts, scores, strict=True)]


@pytest.mark.parametrize(
    ("score", "number"),
    [(0.0, 0), (-3.0, 0), (0.124, 0), (0.126, 1), (14.25, 57), (24.9, 100), (25.0, 100), (900, 100)],
)
def test_the_rule(score: float, number: int) -> None:
    assert text_with_score("cats sleep", score) == f"{number} [SEP] cats sleep"
    assert text_without_score(text_with_score("a [SEP] b", score), ScoreText()) == "a [SEP] b"


def test_settings_of_the_rule() -> None:
    assert text_with_score("cats sleep", 10, bm25_max=40, separator="</s>") == "25 </s> cats sleep"
    defaults = inspect.signature(text_with_score).parameters
    assert ScoreText().model_dump() == {name: defaults[name].default for name in ("bm25_max", "separator")}


@pytest.mark.parametrize(("score", "highest"), [(math.nan, 25), (math.inf, 25), (1, 0), (1, -2), (1, math.nan)])
def test_what_cannot_be_written(score: float, highest: float) -> None:
    with pytest.raises(DataError, match=f"score {score}, bm25_max {highest}"):
        text_with_score("cats", score, highest)


def test_scores_are_lucenes_bm25_by_hand() -> None:
    corpus = {"a": Document("", "cat cat dog"), "b": Document("", "cat"), "c": Document("", "fish bird horse cow")}
    data = RankingData("animals", {"q": "cat horse"}, corpus, {"test": Split({}, {"q": ["b"]})})
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5)), math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    mean = 8 / 3
    by_hand = [
        idf[0] * 2 / (2 + K1 * (1 - B + B * 3 / mean)),
        idf[0] * 1 / (1 + K1 * (1 - B + B * 1 / mean)),
        idf[1] * 1 / (1 + K1 * (1 - B + B * 4 / mean)),
    ]
    texts = data.with_score_text(ScoreText(bm25_max=1)).documents("q", ["a", "b", "c"])
    assert [int(text.split()[0]) for text in texts] == [round(100 * score) for score in by_hand]


def test_pairs_of_candidates_and_of_any_other_document(word_data: RankingData, scored: RankingData) -> None:
    query = "q50"
    other = next(key for key in word_data.corpus if key not in word_data.splits["test"].candidates[query])
    documents = [*word_data.splits["test"].candidates[query], other]
    texts = expected(word_data, query, documents)
    assert scored.pairs(query, documents) == [(word_data.queries[query], text) for text in texts]
    assert scored.documents(query, documents) == texts
    numbers = {text.split()[0] for text in texts}
    assert "0" in numbers and len(numbers) > 2  # unmatched documents too, and scores that differ
    plain = word_data.pairs(query, documents)
    assert [document for _, document in plain] == [word_data.corpus[document].content for document in documents]


def test_scores_do_not_depend_on_what_is_listed_beside(scored: RankingData) -> None:
    documents = scored.splits["test"].candidates["q50"]
    assert scored.documents("q50", documents) == [scored.documents("q50", [each])[0] for each in documents]
    limited = scored.limited({"test": 2, "train": 5}, candidates=3).with_dev(2)
    assert limited.documents("q50", documents) == scored.documents("q50", documents)


def test_training_lists_hold_scores_of_hard_and_random_documents(word_data: RankingData, scored: RankingData) -> None:
    plain = training_lists(word_data, 8, 3, seed=0)
    lists = training_lists(scored, 8, 3, seed=0)
    assert lists["document_ids"][:] == plain["document_ids"][:] and lists["labels"][:] == plain["labels"][:]
    for row in lists:
        assert row["documents"] == expected(word_data, row["query_id"], row["document_ids"])


def test_calibration_reads_scores(word_data: RankingData, scored: RankingData, tokenizer: BertTokenizerFast) -> None:
    seen: list[dict[str, Any]] = []

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        seen.extend(rows)
        return {}

    Calibration(scored, collate, 12, seed=0)  # type: ignore[arg-type]
    judging = [row for row in seen if row["document_ids"] == scored.splits["train"].candidates[row["query_id"]]]
    assert len(judging) == 6 and len(seen) > 12
    for row in seen:
        assert row["documents"] == expected(word_data, row["query_id"], row["document_ids"])


def test_the_teacher_of_mining_reads_scores_and_files_hold_none(
    word_data: RankingData, scored: RankingData, tmp_path: Path
) -> None:
    class Overlap:
        def score(self, pairs: list[tuple[str, str]]) -> Any:
            read.extend(pairs)
            return torch.arange(len(pairs), 0, -1).numpy().astype("float32")

    read: list[tuple[str, str]] = []
    mine_hard_negatives(scored, Overlap(), tmp_path / "mined", name="x", fingerprint="x", depth=5, progress=False)
    texts = {
        text for query in scored.splits["train"].candidates for text in expected(word_data, query, list(scored.corpus))
    }
    assert read and {text for _, text in read} <= texts
    written = "".join(path.read_text() for path in (tmp_path / "mined").rglob("*.jsonl"))
    assert "sun" in written and "[SEP]" not in written


def test_bm25_as_a_teacher_scores_the_documents_themselves(word_data: RankingData, scored: RankingData) -> None:
    documents = word_data.splits["test"].candidates["q50"]
    plain = Bm25Ranker(word_data.corpus).score(word_data.pairs("q50", documents))
    assert Bm25Ranker(scored.corpus, SETTINGS).score(scored.pairs("q50", documents)).tolist() == plain.tolist()
    with pytest.raises(DataError, match="not in its corpus"):
        Bm25Ranker(scored.corpus).score(scored.pairs("q50", documents))


def test_the_fingerprint_says_how_texts_are_made(word_data: RankingData, scored: RankingData) -> None:
    other = word_data.with_score_text(ScoreText(bm25_max=5.0))
    separated = word_data.with_score_text(ScoreText(bm25_max=4.0, separator="|"))
    assert len({data.fingerprint() for data in (word_data, scored, other, separated)}) == 4
    assert word_data.with_score_text(SETTINGS).fingerprint() == scored.fingerprint()


def test_a_data_step_loads_it(word_data: RankingData, tmp_path: Path) -> None:
    folder = str(write_beir(tmp_path / "words", word_data))  # candidates come from files, without scores
    plain = load_data(DataStep(sets=[folder], candidates=6), progress=False)
    data = load_data(DataStep(sets=[folder], candidates=6, score_text=SETTINGS), progress=False)
    assert plain.score_text is None
    assert data.score_text is not None and data.score_text.settings == SETTINGS
    assert data.documents("q50", ["d50"]) == expected(word_data, "q50", ["d50"])


def test_joined_sets_are_scored_over_the_joined_corpus(word_data: RankingData, tmp_path: Path) -> None:
    folders = [str(write_beir(tmp_path / name, word_data)) for name in ("one", "two")]
    data = load_data(DataStep(sets=folders, score_text=SETTINGS), progress=False)
    (text,) = data.documents("two/q50", ["one/d50"])
    assert text == expected(data, "two/q50", ["one/d50"])[0]


def test_a_config_says_how_its_model_reads() -> None:
    config = pico_config("bert")
    assert score_text_of(config) is None
    record_score_text(config, SETTINGS)
    assert config.to_dict()["score_text"] == {"bm25_max": 4.0, "separator": "[SEP]"}
    assert score_text_of(type(config).from_dict(config.to_dict())) == SETTINGS
    record_score_text(config, None)
    record_score_text(config, None)
    assert score_text_of(config) is None and "score_text" not in config.to_dict()


@pytest.mark.parametrize("damaged", [{"bm25_max": 0}, {"bm25_max": 3, "k1": 2}, "bm25", ["[SEP]"]])
def test_a_config_that_cannot_be_read(damaged: object) -> None:
    with pytest.raises(ModelError, match=r"'score_text'.*bm25_max.*Remedy"):
        score_text_of(pico_config("bert", score_text=damaged))
