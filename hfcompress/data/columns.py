"""Rows with named columns, in the layouts that users of sentence-transformers have, as ranking data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from hfcompress.data.draft import ALL, Draft, split_name
from hfcompress.data.ranking import Document, stable_hash
from hfcompress.errors import DataError

QUERY_COLUMNS = ("query", "question", "anchor", "sentence1", "sentence_1", "text1", "search_query")
LABEL_COLUMNS = ("label", "labels", "relevance", "grade", "score", "scores", "similarity", "margin", "margins")
TEACHER_COLUMNS = ("score", "scores", "margin", "margins")
LAYOUTS = (
    "query, document, label; query, positive; query, positive, negative (or negative_1 ..., or lists); "
    "query, docs, labels (lists)"
)
_POSITIVE = re.compile(r"pos(itive)?s?([_-]?\d+)?", re.IGNORECASE)
_NEGATIVE = re.compile(r"(hard[_-]?)?neg(ative)?s?([_-]?\d+)?", re.IGNORECASE)
_IDENTIFIER = re.compile(r"(.*[_-])?(id|ids|idx|index)|qid|pid|docid|__index_level_0__", re.IGNORECASE)

Label = float | None


class Table(Protocol):
    """What is needed of a `datasets.Dataset`."""

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, in their order."""

    def __iter__(self) -> Any:
        """Rows as mappings."""

    def __len__(self) -> int:
        """Number of rows."""


@dataclass(frozen=True)
class Layout:
    """How columns are read.

    Attributes:
        kind: `pairs` have one document and a label a row, `tuples` relevant and other documents, `lists` a list of
            documents with a list of labels, or without any.
        query: Column of the query.
        documents: Column of the document, or of the list; for tuples, those of relevant documents.
        negatives: Columns of documents that are not relevant.
        label: Column of the labels.
        title: Column of the document's title.
        unused: A column with a teacher's scores or margins, which are not labels.
    """

    kind: Literal["pairs", "tuples", "lists"]
    query: str
    documents: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    label: str | None = None
    title: str | None = None
    unused: str | None = None

    def __str__(self) -> str:
        parts = [f"query from {self.query!r}", f"documents from {', '.join(map(repr, self.documents))}"]
        if self.negatives:
            parts.append(f"not relevant from {', '.join(map(repr, self.negatives))}")
        if self.label:
            parts.append(f"labels from {self.label!r}")
        if self.unused:
            parts.append(f"scores in {self.unused!r} unused: the run's own teachers score")
        return "columns: " + ", ".join(parts)


def layout_of(columns: Iterable[str], example: Mapping[str, Any], name: str = "the data") -> Layout:
    """Recognize the layout by the names of the columns and a row.

    The query is the column that is named like one, else the first with text. Columns with ids, and numbers that are no
    labels, are passed over.

    Args:
        columns: Names, in their order.
        example: A row.
        name: Name of the data, for the error.

    Raises:
        DataError: The columns fit no layout.
    """
    columns = list(columns)
    texts = [column for column in columns if not _IDENTIFIER.fullmatch(column) and _is_text(example.get(column))]
    query = next((column for column in texts if column.lower() in QUERY_COLUMNS and _one(example[column])), None)
    query = query or next((column for column in texts if _one(example[column])), None)
    others = [column for column in texts if column != query]
    numbers = [column for column in columns if column.lower() in LABEL_COLUMNS and column not in texts]
    scored = next((column for column in numbers if column.lower() in TEACHER_COLUMNS), None)
    label = next((column for column in numbers if column != scored), scored)
    positives = tuple(column for column in others if _POSITIVE.fullmatch(column))
    negatives = tuple(column for column in others if _NEGATIVE.fullmatch(column))
    if query and positives:
        if label and not negatives and len(positives) == 1 and _one(example[positives[0]]):
            return Layout("pairs", query, positives, label=label)
        return Layout("tuples", query, positives, negatives, unused=scored)
    lists = [column for column in others if not _one(example[column])]
    if query and len(lists) == 1:
        return Layout("lists", query, (lists[0],), label=None if label == scored else label, unused=scored)
    title = next((column for column in others if column.lower() == "title"), None) if len(others) == 2 else None
    documents = tuple(column for column in others if column != title)
    if query and len(documents) == 1 and not lists:
        return Layout("pairs" if label else "tuples", query, documents, label=label, title=title)
    raise DataError(
        f"The columns of {name} fit no layout that is known",
        value=columns,
        expected=LAYOUTS,
        remedy="rename the columns (datasets: rename_column), and remove those that are neither text nor label",
    )


def read_columns(
    name: str, tables: Mapping[str, Table], threshold: float | None = None, language: str = "", license: str = ""
) -> Draft:
    """Read tables, one for each split.

    Queries and documents with the same text are one; a pair that stands there several times has its highest label. A
    query with a list of documents is to be ranked over these (a pool); other documents make up the corpus.

    Args:
        name: Name of the set.
        tables: `{split: table}`; a name that stands for no split is taken as a whole to be split if it is the only one,
            and passed over beside others.
        threshold: From which value on a label that is no whole number counts as relevant.
        language: Language of the texts.
        license: Their licence.

    Raises:
        DataError: The columns fit no layout, a row lacks a value, or labels are neither grades nor between 0 and 1.
    """
    draft = Draft(name, license=license, language=language)
    read: dict[str, list[tuple[str, str, Label]]] = {}
    passed = []
    for given, table in tables.items():
        split = split_name(given) or (ALL if len(tables) == 1 else None)
        if split is None:
            passed.append(given)
            continue
        if not len(table):
            continue
        layout = layout_of(table.column_names, _example(table), f"{name!r} ({given})")
        draft.pool = draft.pool or layout.kind == "lists"
        if str(layout) not in draft.notes:
            draft.notes.append(str(layout))
        read.setdefault(split, []).extend(_judgements(draft, table, layout, f"{name!r} ({given})"))
    if passed and not read:
        raise DataError(
            f"No table of {name!r} is a split",
            value=passed,
            expected="tables named train, dev (or validation) and test, or one table alone",
            remedy="rename them, or give one file",
        )
    if passed:
        draft.notes.append(f"not read, as they are no splits: {', '.join(passed)}")
    _add_grades(draft, read, threshold)
    return draft


def _example(table: Table) -> dict[str, Any]:
    """The first value of every column that is not empty, as far as a few rows show it."""
    found: dict[str, Any] = {}
    for number, row in enumerate(table):
        for column, value in row.items():
            if found.get(column) in (None, "", []):
                found[column] = value
        if number == 20 or all(value not in (None, "", []) for value in found.values()):
            break
    return found


def _one(value: Any) -> bool:
    return isinstance(value, str)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and bool(value) and isinstance(value[0], str))


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text.strip()]


def _judgements(draft: Draft, table: Table, layout: Layout, name: str) -> list[tuple[str, str, Label]]:
    """Add the texts of a table to the draft; returns (query id, document id, label), None where there is no label."""
    found: list[tuple[str, str, Label]] = []
    for number, row in enumerate(table):
        text = row[layout.query]
        if not isinstance(text, str) or not text.strip():
            raise _bad_row(name, number, layout.query, text, "some text")
        query = _add_query(draft, text)
        if layout.kind == "tuples":
            title = _title(row, layout)
            relevant = [_add(draft, each, title) for column in layout.documents for each in _texts(row[column])]
            others = [_add(draft, each) for column in layout.negatives for each in _texts(row[column])]
            if not relevant:
                raise _bad_row(name, number, layout.documents[0], row[layout.documents[0]], "some text")
            found += [(query, document, 1.0) for document in relevant]
            found += [(query, document, 0.0) for document in others if document not in relevant]
            continue
        (column,) = layout.documents
        texts = row[column] if layout.kind == "lists" else [row[column]]
        if not texts or not all(isinstance(each, str) and each.strip() for each in texts):
            raise _bad_row(name, number, column, texts, "documents with some text")
        labels: list[Any] = [None] * len(texts)
        if layout.label:
            labels = row[layout.label] if layout.kind == "lists" else [row[layout.label]]
            if not isinstance(labels, list) or len(labels) != len(texts) or not all(map(_is_number, labels)):
                raise _bad_row(name, number, layout.label, labels, f"{len(texts)} number(s), one a document")
        for each, label in zip(texts, labels, strict=True):
            document = _add(draft, each, _title(row, layout))
            found.append((query, document, None if label is None else float(label)))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value


def _title(row: Mapping[str, Any], layout: Layout) -> str:
    return (row[layout.title] or "") if layout.title else ""


def _add_query(draft: Draft, text: str) -> str:
    key = f"q{stable_hash(text)[:16]}"
    draft.queries[key] = text
    return key


def _add(draft: Draft, text: str, title: str = "") -> str:
    key = f"d{stable_hash(title + chr(0) + text)[:16]}"
    draft.corpus[key] = Document(title, text)
    return key


def _bad_row(name: str, number: int, column: str, value: Any, expected: str) -> DataError:
    return DataError(
        f"Row {number + 1} of {name}, column {column!r}", value=value, expected=expected, remedy="correct or drop it"
    )


def _add_grades(draft: Draft, read: Mapping[str, list[tuple[str, str, Label]]], threshold: float | None) -> None:
    """Turn labels into grades: whole numbers as they are, others by the threshold."""
    labels = {label for rows in read.values() for *_, label in rows if label is not None}
    whole = all(label == int(label) and label >= 0 for label in labels)
    if not whole and threshold is None:
        if min(labels) < 0 or max(labels) > 1:
            raise DataError(
                f"The labels of {draft.name!r} are neither grades nor between 0 and 1",
                value=f"{min(labels)} to {max(labels)}",
                expected="whole numbers of 0 or more, or numbers between 0 and 1",
                remedy="set data.label_threshold in a recipe to the value from which on a document counts as relevant",
            )
        threshold = 0.5
    if not whole:
        draft.notes.append(f"labels of {threshold:g} or more count as relevant")
    for split, rows in read.items():
        qrels = draft.qrels.setdefault(split, {})
        listed = draft.candidates.setdefault(split, {}) if draft.pool else {}
        for query, document, label in rows:
            grades = qrels.setdefault(query, {})
            if draft.pool and document not in (known := listed.setdefault(query, [])):
                known.append(document)
            if label is not None:
                grade = int(label) if whole else int(label >= (threshold or 0.5))
                grades[document] = max(grades.get(document, 0), grade)
