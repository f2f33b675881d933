"""Rows in the column layouts of sentence-transformers users."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset

from hfcompress.data.columns import detect_layout, read_columns
from hfcompress.data.draft import ALL, Draft
from hfcompress.errors import DataError

SOUND = {"query": "how long does a cat sleep", "document": "Cats sleep for most of the day.", "label": 1}


def table(*rows: dict[str, Any]) -> Dataset:
    return Dataset.from_list(list(rows))


def grades(draft: Draft, split: str = ALL) -> dict[str, dict[str, int]]:
    """Judgements by text."""
    return {
        draft.queries[query]: {draft.corpus[document].content: grade for document, grade in judged.items()}
        for query, judged in draft.qrels[split].items()
    }


# Layouts


@pytest.mark.parametrize(
    ("row", "kind", "query", "documents", "negatives", "label"),
    [
        (SOUND, "pairs", "query", ("document",), (), "label"),
        ({"sentence1": "a", "sentence2": "b", "score": 0.5}, "pairs", "sentence1", ("sentence2",), (), "score"),
        ({"label": 1, "premise": "a", "hypothesis": "b"}, "pairs", "premise", ("hypothesis",), (), "label"),
        ({"answer": "b", "question": "a"}, "tuples", "question", ("answer",), (), None),
        ({"query_id": "1", "query": "a", "idx": 3, "positive": "b"}, "tuples", "query", ("positive",), (), None),
        ({"anchor": "a", "positive": "b", "negative": "c"}, "tuples", "anchor", ("positive",), ("negative",), None),
        (
            {"query": "a", "positive": "b", "negative_1": "c", "negative_2": "d"},
            "tuples",
            "query",
            ("positive",),
            ("negative_1", "negative_2"),
            None,
        ),
        ({"query": "a", "pos": ["b"], "neg": ["c", "d"]}, "tuples", "query", ("pos",), ("neg",), None),
        (
            {"query": "a", "positive": "b", "negative": "c", "score": 3.5},
            "tuples",
            "query",
            ("positive",),
            ("negative",),
            None,
        ),
        ({"query": "a", "positive": "b", "score": 1.0}, "pairs", "query", ("positive",), (), "score"),
        ({"query": "a", "docs": ["b", "c"], "labels": [1, 0]}, "lists", "query", ("docs",), (), "labels"),
        (
            {"query": "a", "docs": ["b", "c"], "labels": [1, 0], "scores": [2.0, 1.0]},
            "lists",
            "query",
            ("docs",),
            (),
            "labels",
        ),
        ({"query": "a", "docs": ["b", "c"], "scores": [2.0, 1.0]}, "lists", "query", ("docs",), (), None),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_layouts(
    row: dict[str, Any],
    kind: str,
    query: str,
    documents: tuple[str, ...],
    negatives: tuple[str, ...],
    label: str | None,
) -> None:
    found = detect_layout(list(row), row)
    assert (found.kind, found.query, found.documents, found.negatives, found.label) == (
        kind,
        query,
        documents,
        negatives,
        label,
    )


@pytest.mark.parametrize(
    "row",
    [
        {"a": 1},
        {"text": "only one"},
        {"query": "a", "passage": "b", "source": "c", "label": 1},
        {"query": "a", "docs": ["b"], "more": ["c"], "labels": [1]},
    ],
    ids=lambda row: "+".join(row),
)
def test_columns_that_fit_no_layout(row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="fit no layout") as caught:
        detect_layout(list(row), row)
    assert "negative_1" in str(caught.value) and "rename_column" in str(caught.value)


# Judgements


def test_pairs_with_grades_and_equal_texts_are_joined() -> None:
    rows = [SOUND, {**SOUND, "document": "Dogs bark."}, {**SOUND, "document": "Dogs bark.", "label": 0}]
    draft = read_columns("animals", {"train": table(*rows)})
    assert grades(draft, "train") == {SOUND["query"]: {SOUND["document"]: 1, "Dogs bark.": 1}}
    assert len(draft.corpus) == 2


def test_titles_are_read() -> None:
    draft = read_columns("x", {"all": table({"query": "q", "title": "Cats", "text": "They sleep.", "label": 2})})
    assert grades(draft) == {"q": {"Cats They sleep.": 2}}


def test_tuples_with_missing_negatives() -> None:
    rows = [
        {"query": "q", "positive": "b", "negative_1": "c", "negative_2": None},
        {"query": "q", "positive": "d", "negative_1": "b", "negative_2": "e"},
    ]
    assert grades(read_columns("x", {"all": table(*rows)})) == {"q": {"b": 1, "c": 0, "d": 1, "e": 0}}


def test_margins_and_scores_of_a_teacher_are_no_labels_and_are_mentioned() -> None:
    rows = [{"query": "q", "positive": "b", "negative": "c", "score": -3.5}]
    draft = read_columns("x", {"all": table(*rows)})
    assert grades(draft) == {"q": {"b": 1, "c": 0}}
    assert "scores in 'score' unused" in draft.notes[0]
    draft = read_columns("x", {"all": table({"query": "q", "docs": ["b", "c"], "scores": [3.0, -1.5]})})
    assert grades(draft) == {"q": {}} and draft.pool


def test_numbers_between_0_and_1_count_from_one_half_on() -> None:
    rows = [{**SOUND, "document": str(number), "label": number / 4} for number in range(5)]
    draft = read_columns("x", {"all": table(*rows)})
    assert grades(draft)[SOUND["query"]] == {"0": 0, "1": 0, "2": 1, "3": 1, "4": 1}
    assert "labels of 0.5 or more count as relevant" in draft.notes


def test_a_threshold_for_other_numbers() -> None:
    rows = [{**SOUND, "document": str(number), "label": float(number) + 0.5} for number in range(-2, 3)]
    with pytest.raises(DataError, match=r"-1.5 to 2.5.*data.label_threshold"):
        read_columns("x", {"all": table(*rows)})
    draft = read_columns("x", {"all": table(*rows)}, threshold=1.5)
    assert grades(draft)[SOUND["query"]] == {"-2": 0, "-1": 0, "0": 0, "1": 1, "2": 1}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({**SOUND, "query": " "}, "Row 2 .*'query'.*some text"),
        ({**SOUND, "document": ""}, "Row 2 .*'document'"),
        ({**SOUND, "label": None}, "Row 2 .*'label'"),
    ],
)
def test_bad_rows(row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_columns("x", {"all": table(SOUND, row)})


def test_lists_with_too_few_labels() -> None:
    rows = [{"query": "q", "docs": ["b", "c"], "labels": [1]}]
    with pytest.raises(DataError, match=r"Row 1 .*'labels'.*2 number"):
        read_columns("x", {"all": table(*rows)})


# Splits


def test_tables_that_are_no_splits() -> None:
    tables = {"train": table(SOUND), "unsupervised": table(SOUND)}
    assert "not read, as they are no splits: unsupervised" in read_columns("x", tables).notes
    with pytest.raises(DataError, match="No table of 'x' is a split"):
        read_columns("x", {"first": table(SOUND), "second": table(SOUND)})
