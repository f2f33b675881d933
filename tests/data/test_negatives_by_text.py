"""Negatives, leaks and splits are told apart by normalized text, not by id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hfcompress.data.beir import load_beir
from hfcompress.data.document import Document, text_key
from hfcompress.data.draft import Draft, finish, hashed_split
from hfcompress.data.hard_negatives import mine_hard_negatives
from hfcompress.data.lists import training_lists
from hfcompress.data.pseudo_queries import add_pseudo_queries
from hfcompress.data.ranking import RankingData, Split
from hfcompress.data.statistics import dataset_statistics

# Each is the text "caf\u00e9 number 7" to a reader: decomposed, full-width, in upper case, and with other white space.
COPIES = (
    "cafe\u0301 number 7",
    "\uff43\uff41\uff46\u00e9 number \uff17",
    "CAF\u00c9 Number 7",
    "caf\u00e9\u00a0 number\t7 ",
)


def copied(number: int, form: int) -> str:
    return COPIES[form].replace("7", str(number)).replace("\uff17", chr(0xFF10 + number))


def with_copies(queries: int = 8) -> RankingData:
    """Data whose relevant documents each have a copy of every form under another id among the candidates."""
    corpus, texts, qrels, candidates = {}, {}, {}, {}
    for number in range(queries):
        corpus[f"d{number}"] = Document("", f"caf\u00e9 number {number}")
        corpus |= {f"d{number}-{form}": Document("", copied(number, form)) for form in range(len(COPIES))}
        texts[f"q{number}"] = f"find number {number}"
        qrels[f"q{number}"] = {f"d{number}": 1}
        candidates[f"q{number}"] = [key for key in corpus if key.startswith(f"d{number}")]
    corpus |= {f"other{number}": Document("", f"tea of kind {number}") for number in range(20)}
    for listed in candidates.values():
        listed += [f"other{number}" for number in range(10)]
    return RankingData("copies", texts, corpus, {"train": Split(qrels, candidates)})


class ById:
    """A teacher under which every copy looks like a perfect hard negative."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return np.array([-1.0 if text == text.lower() and text.isascii() else -0.5 for _, text in pairs])


@pytest.mark.parametrize("form", range(len(COPIES)))
def test_a_text_has_one_key_in_every_form(form: int) -> None:
    assert text_key(COPIES[form]) == text_key("caf\u00e9 number 7") != text_key("cafe number 7")
    assert Document("", COPIES[form]).text_key == text_key(COPIES[form])


@pytest.mark.parametrize("random_negatives", [0, 2, 6])
@pytest.mark.parametrize("seed", range(5))
def test_no_copy_of_a_relevant_document_is_a_negative(random_negatives: int, seed: int) -> None:
    data = with_copies()
    for row in training_lists(data, 7, random_negatives, seed):
        keys = [text_key(text) for text in row["documents"]]
        assert len(keys) == 7 and len(set(keys)) == len(keys)  # neither as a negative nor twice as one
        assert row["labels"] == [1.0] + 6 * [0.0]


def test_a_copy_that_is_judged_as_not_relevant_is_no_negative_either() -> None:
    data = with_copies()
    train = data.splits["train"]
    qrels = {query: {**grades, "d0-1": 0, "d1-2": 0} for query, grades in train.qrels.items()}
    lists = training_lists(
        RankingData("x", data.queries, data.corpus, {"train": Split(qrels, train.candidates)}), 7, 2, 0
    )
    for row in lists:
        assert len({text_key(text) for text in row["documents"]}) == 7


def test_mining_drops_copies_before_they_are_scored(tmp_path: Path) -> None:
    data = with_copies()
    mined = mine_hard_negatives(
        data, ById(), tmp_path / "out", name="t", fingerprint="1", depth=40, margin=-5.0, progress=False
    )
    assert mined.copies > 0
    for query, listed in load_beir(tmp_path / "out").splits["train"].candidates.items():
        keys = [data.corpus[document].text_key for document in listed]
        assert listed[0] == f"d{query[1:]}" and len(keys) > 1 and len(set(keys)) == len(keys)


def test_equal_texts_fall_into_one_split_whatever_their_form() -> None:
    for number in range(10):
        splits = {hashed_split(copied(number, form), 0) for form in range(len(COPIES))}
        assert splits == {hashed_split(f"caf\u00e9 number {number}", 0)}


def test_dev_queries_cut_from_train_take_their_copies_along() -> None:
    data = with_copies(8)
    queries = {**data.queries, **{f"{key}-copy": text.upper() for key, text in data.queries.items()}}
    train = data.splits["train"]
    qrels = {**train.qrels, **{f"{key}-copy": grades for key, grades in train.qrels.items()}}
    candidates = {**train.candidates, **{f"{key}-copy": listed for key, listed in train.candidates.items()}}
    cut = RankingData("x", queries, data.corpus, {"train": Split(qrels, candidates)}).with_dev(3)
    keys = {name: {text_key(queries[query]) for query in split.candidates} for name, split in cut.splits.items()}
    assert not keys["train"] & keys["dev"] and len(keys["dev"]) >= 2
    assert {*cut.splits["train"].candidates, *cut.splits["dev"].candidates} == set(candidates)


def test_a_made_up_query_is_no_query_of_the_data() -> None:
    data = with_copies()
    test = Split({"held-out": {"d3": 1}}, {"held-out": ["d3"]})
    data = RankingData("x", {"held-out": copied(3, 2)}, data.corpus, {"test": test})
    made = add_pseudo_queries(data, 100, 0)
    keys = [text_key(made.queries[query]) for query in made.splits["train"].candidates]
    assert text_key(copied(3, 2)) not in keys and len(set(keys)) == len(keys) == 7 + 20


def test_the_data_check_counts_copies_leaks_and_repetitions() -> None:
    data = with_copies(2)
    queries = {**data.queries, "again": "\uff26ind number\u3000 0"}
    test = Split({"again": {"d0-1": 1}}, {"again": ["d0", "d0-1", "d0-2", "other1"]})
    facts = dataset_statistics(RankingData("x", queries, data.corpus, {**data.splits, "test": test}))
    assert facts.repeated_documents == 2 * 5
    (leak,) = facts.leaks
    assert leak.queries == 1 and leak.examples == ["again"] and leak.pairs == 1
    assert facts.splits["test"].relevant_copies == 2 and facts.splits["train"].relevant_copies == 2 * 4
    assert any("2 candidates in test repeat the text of a relevant document" in line for line in facts.warnings())


def test_a_set_that_is_cut_into_splits_has_no_leak() -> None:
    queries = {f"q{number}-{form}": copied(number, form) for number in range(10) for form in range(len(COPIES))}
    corpus = {f"d{number}": Document("", f"document of number {number}") for number in range(10)}
    qrels = {query: {f"d{query[1]}": 1} for query in queries}
    data = finish(Draft("cut", queries, corpus, {"whole": qrels}), {}, candidates=5, seed=1)
    assert set(data.splits) > {"train"}
    assert not dataset_statistics(data).leaks
