"""Queries made from documents: their texts, their one relevant document, and the draw."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hfcompress.data.document import Document
from hfcompress.data.lists import training_lists
from hfcompress.data.pseudo_queries import add_pseudo_queries, has_pseudo_queries, make_queries
from hfcompress.data.ranking import RankingData, Split, validate
from hfcompress.errors import DataError

CORPUS = {
    "titled": Document("Sleep of cats", "A cat sleeps most of the day. At night it hunts."),
    "plain": Document("", "Dogs bark at strangers. They also bark at friends."),
    "lines": Document("", "Birds fly south in autumn\nSome stay."),
    "chinese": Document("", "鱼在水里游。鸟在天上飞。"),
    "again": Document("", "Dogs bark at strangers. Nobody knows why."),
    "marks": Document("", "--- ***"),
    "long": Document("", " ".join(f"word{number}" for number in range(90))),
}
DATA = RankingData("animals", {"q": "who sleeps"}, CORPUS, {"test": Split({"q": {"titled": 1}}, {"q": ["titled"]})})


def test_titles_or_first_sentences() -> None:
    made = validate(add_pseudo_queries(DATA, 5, seed=0, candidates=3))
    train = made.splits["train"]
    texts = {query.removeprefix("pseudo-query/"): made.queries[query] for query in train.candidates}
    assert texts.pop("plain", None) or texts.pop("again") == "Dogs bark at strangers."  # one query for equal texts
    assert len(train) == 5
    assert texts.pop("long").split() == [f"word{number}" for number in range(32)]
    assert texts == {"titled": "Sleep of cats", "lines": "Birds fly south in autumn", "chinese": "鱼在水里游。"}
    for query, documents in train.candidates.items():
        document = query.removeprefix("pseudo-query/")
        assert train.qrels[query] == {document: 1} and len(documents) == 3
        if document != "chinese":  # of which the English tokens of BM25 make one word
            assert document in documents
    assert made.corpus is DATA.corpus and made.splits["test"] is DATA.splits["test"]
    assert made.notes == ("5 train queries made from titles and sentences of documents",)
    assert has_pseudo_queries(made) and not has_pseudo_queries(DATA)


def test_lists_of_pseudo_queries_begin_with_their_document() -> None:
    for row in training_lists(add_pseudo_queries(DATA, 5, seed=0), 3, 1, seed=0):
        assert row["document_ids"][0] == row["query_id"].removeprefix("pseudo-query/")
        assert row["labels"] == [1.0, 0.0, 0.0]


def test_the_seed_decides_and_train_queries_stay() -> None:
    train = Split({"q": {"titled": 1}}, {"q": ["titled"]})
    labelled = replace(DATA, splits={**DATA.splits, "train": train}, relevant_from=2)
    draws = [list(add_pseudo_queries(labelled, 2, seed).splits["train"].candidates) for seed in range(9)]
    assert all(names[0] == "q" and len(names) == 3 for names in draws)
    assert len({tuple(names) for names in draws}) > 1
    assert draws[0] == list(add_pseudo_queries(labelled, 2, 0).splits["train"].candidates)
    made = add_pseudo_queries(labelled, 2, 0).splits["train"]
    assert {grade for query in draws[0][1:] for grade in made.qrels[query].values()} == {2}  # relevant in every metric


def test_a_corpus_that_gives_no_query() -> None:
    with pytest.raises(DataError, match=r"No pseudo-query.*'animals'.*1 documents"):
        add_pseudo_queries(replace(DATA, corpus={"marks": CORPUS["marks"]}), 5, seed=0)


def test_further_sentences_follow_when_every_document_gave_a_query() -> None:
    made = make_queries(CORPUS, 100, seed=0)
    first = [query for query in made if "#" not in query]
    assert list(made)[: len(first)] == first and len(first) == 5
    assert made["pseudo-query/titled#2"][0] in {"A cat sleeps most of the day.", "At night it hunts."}
    assert {made[f"pseudo-query/titled#{number}"][0] for number in (2, 3)} == {
        "A cat sleeps most of the day.",
        "At night it hunts.",
    }
    assert not any(text == "Some stay." for text, _ in made.values())  # shorter than 16 characters
    texts = [text for text, _ in made.values()]
    assert len(set(texts)) == len(texts) and all(CORPUS[document] for _, document in made.values())
    assert max(len(text.split()) for text in texts) == 32 and max(map(len, texts)) <= 256
    for count in (1, 4, 6, 8):  # fewer are the first of more
        assert list(make_queries(CORPUS, count, seed=0).items()) == list(made.items())[:count]


def test_any_sentence_is_drawn_and_not_the_title() -> None:
    drawn = {
        make_queries({"titled": CORPUS["titled"]}, 1, seed, titles=False)["pseudo-query/titled"][0] for seed in range(9)
    }
    assert drawn == {"A cat sleeps most of the day.", "At night it hunts."}
    only = make_queries({"a": Document("A short title", "No.")}, 3, 0, titles=False)
    assert only == {"pseudo-query/a": ("A short title", "a")}


def test_documents_of_lists_come_last_and_known_texts_never() -> None:
    made = make_queries(CORPUS, 100, seed=3, last={"titled", "lines"}, known=["sleep of  CATS"])
    order = [document for query, (_, document) in made.items() if "#" not in query]
    assert order[-1] == "lines" and set(order) == {"lines", "long", "chinese", *({"plain", "again"} & set(order))}
    assert "Sleep of cats" not in {text for text, _ in made.values()}
