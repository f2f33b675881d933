"""Reading rows with named columns, in the layouts of sentence-transformers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from hfcompress.data.document import Document
from hfcompress.data.draft import ALL, Draft, split_name
from hfcompress.data.ranking import stable_hash
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
    """The part of the interface of `datasets.Dataset` that is used here."""

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, in their order."""

    def __iter__(self) -> Any:
        """Rows as mappings."""

    def __len__(self) -> int:
        """Number of rows."""


@dataclass(frozen=True)
class Layout:
    """The roles of the columns.

    Attributes:
        kind: Rows of `pairs` have one document and a label, those of `tuples` relevant and other documents, those of
            `lists` a list of documents, with or without a list of labels.
        query: Column of the query.
        documents: Column of the document or of the list; for tuples, the columns of relevant documents.
        negatives: Columns of documents that are not relevant.
        label: Column of the labels.
        title: Column of the document's title.
        unused: Column with the scores or margins of a teacher, which are not labels.
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


def detect_layout(columns: Iterable[str], example: Mapping[str, Any], name: str = "the data") -> Layout:
    """Detect the layout from the names of the columns and a row.

    The query is the column with a name such as `query`, else the first one with text. Ids, and numbers that are not
    labels, are ignored.

    Args:
        columns: Names of the columns, in their order.
        example: A row.
        name: Name of the data, for the error message.

    Raises:
        DataError: The columns fit no layout.
    """
    columns = list(columns)
    texts = [column for column in columns if not _IDENTIFIER.fullmatch(column) and _is_text(example.get(column))]
    single = [column for column in texts if isinstance(example[column], str)]
    query = next((column for column in single if column.lower() in QUERY_COLUMNS), next(iter(single), None))
    others = [column for column in texts if column != query]
    numbers = [column for column in columns if column.lower() in LABEL_COLUMNS and column not in texts]
    scored = next((column for column in numbers if column.lower() in TEACHER_COLUMNS), None)
    label = next((column for column in numbers if column != scored), scored)
    positives = tuple(column for column in others if _POSITIVE.fullmatch(column))
    negatives = tuple(column for column in others if _NEGATIVE.fullmatch(column))
    if query and positives:
        if label and not negatives and len(positives) == 1 and positives[0] in single:
            return Layout("pairs", query, positives, label=label)
        return Layout("tuples", query, positives, negatives, unused=scored)
    lists = [column for column in others if column not in single]
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
    """Read tables, one per split.

    Equal texts are merged into one query or document, and a repeated pair gets its highest label. Lists of documents
    make the set a pool, in which the list of a query is ranked; the documents of other layouts form a corpus.

    Args:
        name: Name of the set.
        tables: `{split: table}`. A single table may have any name and is split later; of several tables, those whose
            name is no split are ignored.
        threshold: Lowest label that counts as relevant, for labels that are not whole numbers.
        language: Language of the texts.
        license: Licence of the texts.

    Raises:
        DataError: The columns fit no layout, a row lacks a value, or labels are neither grades nor between 0 and 1.
    """
    draft = Draft(name, license=license, language=language)
    labels: dict[str, list[tuple[str, str, Label]]] = {}
    ignored = []
    for given, table in tables.items():
        split = split_name(given) or (ALL if len(tables) == 1 else None)
        if split is None:
            ignored.append(given)
            continue
        if not len(table):
            continue
        layout = detect_layout(table.column_names, _example(table), f"{name!r} ({given})")
        draft.pool = draft.pool or layout.kind == "lists"
        if str(layout) not in draft.notes:
            draft.notes.append(str(layout))
        labels.setdefault(split, []).extend(_judgements(draft, table, layout, f"{name!r} ({given})"))
    if ignored and not labels:
        raise DataError(
            f"No table of {name!r} is a split",
            value=ignored,
            expected="tables named train, dev (or validation) and test, or one table alone",
            remedy="rename them, or give one file",
        )
    if ignored:
        draft.notes.append(f"not read, as they are no splits: {', '.join(ignored)}")
    _add_grades(draft, labels, threshold)
    return draft


def _example(table: Table) -> dict[str, Any]:
    """Return the first non-empty value of every column in the first rows."""
    found: dict[str, Any] = {}
    for number, row in enumerate(table):
        for column, value in row.items():
            if found.get(column) in (None, "", []):
                found[column] = value
        if number == 20 or all(value not in (None, "", []) for value in found.values()):
            break
    return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and bool(value) and isinstance(value[0], str))


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text.strip()]


def _judgements(draft: Draft, table: Table, layout: Layout, name: str) -> list[tuple[str, str, Label]]:
    """Add the texts of a table to the draft; return (query id, document id, label), with None for a missing label."""
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


def _add_grades(draft: Draft, labels: Mapping[str, list[tuple[str, str, Label]]], threshold: float | None) -> None:
    """Turn labels into grades: whole numbers are kept, others are compared with the threshold."""
    values = {label for rows in labels.values() for *_, label in rows if label is not None}
    whole = all(value == int(value) and value >= 0 for value in values)
    if not whole and threshold is None:
        if min(values) < 0 or max(values) > 1:
            raise DataError(
                f"The labels of {draft.name!r} are neither grades nor between 0 and 1",
                value=f"{min(values)} to {max(values)}",
                expected="whole numbers of 0 or more, or numbers between 0 and 1",
                remedy="set data.label_threshold in a recipe to the lowest label that counts as relevant",
            )
        threshold = 0.5
    if not whole:
        draft.notes.append(f"labels of {threshold:g} or more count as relevant")
    for split, rows in labels.items():
        qrels = draft.qrels.setdefault(split, {})
        listed = draft.candidates.setdefault(split, {}) if draft.pool else {}
        for query, document, label in rows:
            grades = qrels.setdefault(query, {})
            if draft.pool and document not in (known := listed.setdefault(query, [])):
                known.append(document)
            if label is not None:
                grade = int(label) if whole else int(label >= (threshold or 0.5))
                grades[document] = max(grades.get(document, 0), grade)
