"""Additional texts of a recovery: their queries, their lists, and what they do not depend on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import write_beir

from hfcompress.data import also as also_module
from hfcompress.data.also import also_count, has_general_text, load_also, mixed
from hfcompress.data.document import Document
from hfcompress.data.lists import training_lists
from hfcompress.data.load import BUILT_IN, GENERAL_TEXT
from hfcompress.data.ranking import RankingData, Split
from hfcompress.errors import DataError
from hfcompress.recipe import DataStep, ScoreText

STEP = DataStep(sets=["words"], candidates=6)


@pytest.fixture
def words(tmp_path: Path, word_data: RankingData) -> Path:
    return write_beir(tmp_path / "words", word_data)


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    lines = [f"The animal of kind {number} lives here. It eats plants of kind {number}." for number in range(30)]
    (tmp_path / "prose.txt").write_text("\n".join(lines))
    return tmp_path / "prose.txt"


def load(
    *names: object, queries: int = 20, known: tuple[str, ...] = (), step: DataStep = STEP
) -> also_module.AlsoTexts:
    return load_also([str(name) for name in names], step, queries, 0, known, progress=False)


def test_train_queries_of_a_set_without_their_judgements(words: Path, word_data: RankingData) -> None:
    train = word_data.splits["train"]
    also = load(words)
    chosen = also.data.splits["train"]
    assert len(also) == 20 and set(chosen.candidates) < set(train.candidates) and set(also.data.splits) == {"train"}
    assert all(
        chosen.candidates[query] == train.candidates[query] and not chosen.qrels[query] for query in chosen.candidates
    )
    first = next(iter(chosen.candidates))
    assert first not in load(words, known=(word_data.queries[first].upper(),)).data.splits["train"].candidates
    # Where there are not enough, sentences of documents follow, in whose lists the document is the first.
    more = load(words, queries=60).data.splits["train"]
    assert len(more.candidates) == 60 and list(more.candidates)[:20] == list(chosen.candidates)
    assert sum(query.startswith("pseudo-query/") for query in more.candidates) == 20


def test_all_queries_of_a_set_without_judgements(words: Path, word_data: RankingData) -> None:
    for file in (*(words / "qrels").iterdir(), *(words / "bm25").iterdir()):
        file.unlink()
    given = load(words, queries=60).data.splits["train"].candidates
    assert set(given) == set(word_data.queries) and all(len(documents) == 6 for documents in given.values())


def test_a_set_with_test_queries_alone_gives_sentences(words: Path) -> None:
    for name in ("train", "dev"):
        (words / "qrels" / f"{name}.tsv").unlink()
        (words / "bm25" / f"{name}.tsv").unlink()
    lines = (words / "queries.jsonl").read_text().splitlines()
    (words / "queries.jsonl").write_text("\n".join(line for line in lines if int(json.loads(line)["_id"][1:]) >= 48))
    assert all(query.startswith("pseudo-query/") for query in load(words).data.splits["train"].candidates)


def test_lists_of_sentences_begin_with_their_document(prose: Path) -> None:
    also = load(prose)
    lists = also.lists(4, 1, 7, 12)
    assert len(lists) == 12
    for row in lists:
        assert row["query"].removesuffix(".") in row["documents"][0]
        assert row["query_id"].startswith("also/pseudo-query/") and len(set(row["document_ids"])) == 4
        assert row["labels"] == [0.0] * 4
    assert lists.to_list()[:5] == also.lists(4, 1, 7, 5).to_list()
    starts = {row["query"].split()[0] for row in also.lists(4, 1, 7, 20)}
    assert starts == {"The", "It"}  # any sentence


def test_several_texts_take_turns_and_fewer_queries_are_the_first_of_more(words: Path, prose: Path) -> None:
    few, more = load(words, prose, queries=10), load(words, prose, queries=50)
    assert [few.data.set_of(query) for query in few.data.splits["train"].candidates] == ["words", "prose"] * 5
    assert list(more.data.splits["train"].candidates)[:10] == list(few.data.splits["train"].candidates)
    assert few.lists(4, 1, 0, 10).to_list() == more.lists(4, 1, 0, 10).to_list()
    assert few.fingerprint == more.fingerprint != load(prose, queries=10).fingerprint
    assert [(part.name, part.queries, part.documents) for part in more.parts(5)] == [
        ("words", 3, 120),
        ("prose", 2, 30),
    ]
    prose.write_text(prose.read_text().replace("plants", "grass"))
    assert load(words, prose, queries=10).fingerprint != few.fingerprint


def test_scores_stand_in_the_texts_where_models_read_them(prose: Path) -> None:
    step = STEP.model_copy(update={"score_text": ScoreText()})
    row = load(prose, step=step).lists(4, 1, 0, 1)[0]
    assert all("[SEP]" in document for document in row["documents"])


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.5, 40), (0.2, 10), (0.6, 60)])
def test_a_share_of_all_lists(share: float, expected: int, word_data: RankingData, prose: Path) -> None:
    assert also_count(40, share) == expected
    if not expected:
        return
    own = training_lists(word_data, 4, 1, 0)
    both = mixed(own, load(prose, queries=60).lists(4, 1, 0, expected))
    kinds = ["also/" in row["query_id"] for row in both]
    assert len(kinds) == 40 + expected and sum(kinds) == expected
    for end in (20, 30):  # rounds of short recoveries take the first lists
        assert sum(kinds[:end]) == pytest.approx(share * end, abs=1)


def test_general_text_is_what_is_installed_and_not_in_the_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    corpus = {
        f"api.{number}": Document(f"api.{number}", f"Function number {number} does a thing.") for number in range(9)
    }
    queries = {f"api.{number}": f"what does function {number} do" for number in range(9)}
    built = RankingData("api-search", queries, corpus, {"train": Split({}, {query: list(corpus) for query in queries})})
    monkeypatch.setitem(BUILT_IN, "api-search", lambda limits, progress: built.limited(limits))
    monkeypatch.setattr(also_module, "find_wordnet", lambda: None)
    assert [part.name for part in load(GENERAL_TEXT, queries=4).parts(4)] == ["api-search"]
    alone = STEP.model_copy(update={"sets": ["api-search"]})
    assert has_general_text(["words"]) and not has_general_text(["api-search"])
    with pytest.raises(DataError, match=r"general-text has nothing beside data\.sets"):
        load(GENERAL_TEXT, step=alone)
    glosses = [
        (f"noun-{number}", Document(f"word {number}", f"the gloss of the word {number}.")) for number in range(9)
    ]
    monkeypatch.setattr(also_module, "find_wordnet", lambda: tmp_path)
    monkeypatch.setattr(also_module, "read_wordnet", lambda path: iter(glosses))
    assert [(part.name, part.queries) for part in load(GENERAL_TEXT, queries=4).parts(4)] == [
        ("api-search", 2),
        ("wordnet", 2),
    ]
    parts = load(GENERAL_TEXT, queries=4, step=alone).parts(4)
    assert [part.name for part in parts] == ["wordnet"] and "WordNet" in parts[0].license


@pytest.mark.parametrize("name", ["missing.txt", "missing"])
def test_a_missing_text_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=name):
        load(tmp_path / name)


def test_a_text_without_words_is_refused(tmp_path: Path) -> None:
    (tmp_path / "marks.txt").write_text("---\n***\n")
    with pytest.raises(DataError, match=r"No query can be made from 'marks' of recover\.also"):
        load(tmp_path / "marks.txt")
