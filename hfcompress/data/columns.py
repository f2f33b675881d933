"""Reading rows with named columns, in the layouts of sentence-transformers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import Any

import numpy as np

from hfcompress.data.document import Document
from hfcompress.data.draft import ALL, Draft, split_name
from hfcompress.data.layouts import Layout, detect_layout, example_row
from hfcompress.data.ranking import stable_hash
from hfcompress.data.values import TEXT_TYPES, as_number, as_text, plain
from hfcompress.errors import DataError

logger = logging.getLogger(__name__)

STREAMED_ROWS = 1_000_000

Label = float | None
Table = Iterable[Mapping[str, Any]]
"""Rows as mappings: a `datasets.Dataset` or `IterableDataset`, `Rows` of files, or a list of dicts."""


def read_columns(
    name: str,
    tables: Mapping[str, Table] | Table,
    threshold: float | None = None,
    language: str = "",
    license: str = "",
    streamed_rows: int = STREAMED_ROWS,
) -> Draft:
    """Read tables, one per split.

    Equal texts are merged into one query or document, and a repeated pair gets its highest label. Lists of documents
    make the set a pool, in which the list of a query is ranked; the documents of other layouts form a corpus. Numbers,
    booleans and dates in a column of texts are read as text.

    Args:
        name: Name of the set.
        tables: `{split: table}`, or one table. A single table may have any name and is split later; of several tables,
            those whose name is no split are ignored.
        threshold: Lowest label that counts as relevant, for labels that are not whole numbers.
        language: Language of the texts.
        license: Licence of the texts.
        streamed_rows: Number of rows to read of a table without length, such as an `IterableDataset`, which may be
            endless.

    Raises:
        DataError: The columns fit no layout, a row lacks a value, or labels are neither grades nor between 0 and 1.
    """
    draft = Draft(name, license=license, language=language)
    named = tables if isinstance(tables, Mapping) else {ALL: tables}
    labels: dict[str, list[tuple[str, str, Label]]] = {}
    ignored = []
    for given, table in named.items():
        split = split_name(given) or (ALL if len(named) == 1 else None)
        if split is None:
            ignored.append(given)
            continue
        reader = _TableReader(draft, table, f"{name!r} ({given})", streamed_rows)
        labels.setdefault(split, []).extend(reader.judgements())
    if ignored and not labels:
        raise DataError(
            f"No table of {name!r} is a split",
            value=ignored,
            expected="tables named train, dev (or validation) and test, or one table alone",
            remedy="rename them, or give one file",
        )
    if ignored:
        draft.notes.append(f"not read, as they are no splits: {', '.join(ignored)}")
    _add_grades(draft, {split: rows for split, rows in labels.items() if rows}, threshold)
    return draft


class _TableReader:
    """Reads the rows of one table into a draft.

    Args:
        draft: The draft, to which texts and notes are added.
        table: The table.
        name: Its name, for error messages.
        streamed_rows: Number of rows to read of a table without length.
    """

    def __init__(self, draft: Draft, table: Table, name: str, streamed_rows: int) -> None:
        self._draft = draft
        self._table = table
        self._name = name
        # Columns that `set_format` hides, and tensors that it makes, are read as they are stored.
        self._rows: Table = table.with_format(None) if hasattr(table, "with_format") else table
        if not isinstance(table, Sized):
            self._rows = list(islice(self._rows, streamed_rows + 1))
            if len(self._rows) > streamed_rows:
                self._rows.pop()
                draft.notes.append(f"the first {streamed_rows} rows of the stream {name} were read, and no others")
        self._features: Mapping[str, Any] = getattr(table, "features", None) or {}

    def judgements(self) -> list[tuple[str, str, Label]]:
        """Add the texts to the draft; return (query id, document id, label), with None for a missing label."""
        columns = getattr(self._table, "column_names", None) or list(
            dict.fromkeys(column for row in self._rows for column in row)
        )
        example = example_row(self._rows, columns, typed=bool(self._features))
        if not example:
            return []
        layout = detect_layout(columns, example, self._name)
        self._draft.pool = self._draft.pool or layout.kind == "lists"
        if str(layout) not in self._draft.notes:
            self._draft.notes.append(str(layout))
            if layout.guessed:
                logger.warning(f"{self._name}: {layout}. Rename the columns if this is wrong.")
        read = {"pairs": self._list, "tuples": self._tuple, "lists": self._list}[layout.kind]
        found: list[tuple[str, str, Label]] = []
        for number, row in enumerate(self._rows):
            query = _add_query(self._draft, self._text(number, row, layout.query))
            found += [(query, document, label) for document, label in read(number, row, layout)]
        return found

    def _tuple(self, number: int, row: Mapping[str, Any], layout: Layout) -> Iterator[tuple[str, Label]]:
        title = self._title(number, row, layout)
        relevant = [_add(self._draft, text, title) for text in self._texts(number, row, layout.documents)]
        if not relevant:
            raise self._bad(number, layout.documents[0], row.get(layout.documents[0]), TEXT_TYPES)
        yield from ((document, 1.0) for document in relevant)
        others = [_add(self._draft, text) for text in self._texts(number, row, layout.negatives)]
        yield from ((document, 0.0) for document in others if document not in relevant)

    def _list(self, number: int, row: Mapping[str, Any], layout: Layout) -> Iterator[tuple[str, Label]]:
        (column,) = layout.documents
        value = plain(row.get(column))
        values = value if layout.kind == "lists" else [value]
        if not isinstance(values, list) or not values:
            raise self._bad(number, column, value, "a list of documents")
        title = self._title(number, row, layout)
        labels: list[Label] = [None] * len(values)
        if layout.label:
            given = plain(row.get(layout.label))
            numbers = given if layout.kind == "lists" else [given]
            labels = [as_number(each) for each in numbers] if isinstance(numbers, list) else []
            if len(labels) != len(values) or None in labels:
                raise self._bad(number, layout.label, given, f"{len(values)} number(s), one a document")
        for each, label in zip(values, labels, strict=True):
            yield _add(self._draft, self._text(number, {column: each}, column), title), label

    def _title(self, number: int, row: Mapping[str, Any], layout: Layout) -> str:
        return self._text(number, row, layout.title, required=False) if layout.title else ""

    def _texts(self, number: int, row: Mapping[str, Any], columns: tuple[str, ...]) -> Iterator[str]:
        """Yield the texts in columns with a text or a list of texts; missing ones, as padding leaves them, are none."""
        for column in columns:
            value = plain(row.get(column))
            for each in value if isinstance(value, list) else [value]:
                text = self._text(number, {column: each}, column, required=False)
                if text.strip():
                    yield text

    def _text(self, number: int, row: Mapping[str, Any], column: str, required: bool = True) -> str:
        value = row.get(column)
        text = as_text(_named_value(self._features.get(column), value))
        if text is None or (required and not text.strip()):
            raise self._bad(number, column, value, TEXT_TYPES if text is None else "some text")
        return text

    def _bad(self, number: int, column: str, value: Any, expected: str) -> DataError:
        where = f" ({self._table.where(number)})" if hasattr(self._table, "where") else ""
        return DataError(
            f"Row {number + 1} of {self._name}{where}, column {column!r}",
            value=str(value) if value is None else value,
            expected=expected,
            remedy="correct or drop it",
        )


def _named_value(feature: Any, value: Any) -> Any:
    """Return the name of a class, and of a 32-bit float the shortest number that is stored in this way."""
    if value is None or not isinstance(value, int | float):
        return value
    if hasattr(feature, "int2str"):
        return feature.int2str(value) if value >= 0 else None
    return float(str(np.float32(value))) if getattr(feature, "dtype", "") == "float32" else value


def _add_query(draft: Draft, text: str) -> str:
    key = f"q{stable_hash(text)[:16]}"
    draft.queries[key] = text
    return key


def _add(draft: Draft, text: str, title: str = "") -> str:
    key = f"d{stable_hash(title + chr(0) + text)[:16]}"
    draft.corpus[key] = Document(title, text)
    return key


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
