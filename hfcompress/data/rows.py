"""Reading rows with named columns from CSV, TSV and JSON files, with the text of every value as the file has it."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from hfcompress.data.lines import bad_line, open_text, read_lines, read_text, unquoted

ROW_FILES = (".csv", ".tsv", ".json", ".jsonl")


class Rows(Sequence[dict[str, Any]]):
    """Rows of one or several files.

    Args:
        files: The files, all of one kind.
        kind: One of `ROW_FILES`.

    Attributes:
        column_names: Names of the columns in the order in which they first occur.

    Raises:
        DataError: A file cannot be read, or a line is malformed. The error names the line.
    """

    def __init__(self, files: Sequence[Path], kind: str) -> None:
        self._rows: list[dict[str, Any]] = []
        self._lines: list[tuple[Path, int]] = []
        read = {".csv": _csv_rows, ".tsv": _tsv_rows}.get(kind, _json_rows)
        for path in files:
            for number, row in read(path):
                self._rows.append(row)
                self._lines.append((path, number))
        self.column_names = list(dict.fromkeys(column for row in self._rows for column in row))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def where(self, index: int) -> str:
        """Return the file and line of a row, for an error message."""
        path, number = self._lines[index]
        return f"{path}, line {number}"


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_text(path, "CSV", newline="") as stream, long_fields():
        yield from _named(path, _records(path, csv.reader(stream, strict=True)))


def _records(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which a record begins, and its fields."""
    while True:
        first = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            expected = "quoted fields that end before a comma or the end of the line, with marks inside doubled"
            remedy = 'write a quotation mark at the beginning of a field as """, or save tab-separated text as .tsv'
            raise bad_line(path, first, f"{error} (up to line {reader.line_num})", expected, remedy) from error
        if any(field.strip() for field in fields):
            yield first, fields


@contextmanager
def long_fields(characters: int = 2**31 - 1) -> Iterator[None]:
    """Lift the limit of the `csv` module, 131,072 characters a field, which is lower than the length of a document.

    Args:
        characters: The limit within the block.
    """
    before = csv.field_size_limit(min(sys.maxsize, characters))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _tsv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = ((number, [field.strip() for field in line.split("\t")]) for number, line in read_lines(path))
    yield from _named(path, unquoted(path, lines, ids=False))


def _named(path: Path, records: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield rows by column, whose names are in the first record. Empty fields behind the last column are ignored."""
    first, header = next(records, (1, []))
    names = [name.strip() for name in header]
    while names and not names[-1]:
        names.pop()
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        remedy = "rename the columns, e.g. negative_1 and negative_2"
        raise bad_line(path, first, repeated, "every name of a column once", remedy)
    for number, fields in records:
        if len(fields) < len(names) or any(field.strip() for field in fields[len(names) :]):
            expected = f"{len(names)} columns, as line {first} names them: {', '.join(names)}"
            remedy = "correct this line; TSV has no quoting, so no text in it may have a tab or a line break"
            raise bad_line(path, number, f"{len(fields)} columns: {fields}", expected, remedy)
        yield number, dict(zip(names, fields, strict=False))


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = read_lines(path, "JSON")
    first, line = next(lines, (1, ""))
    if line.lstrip().startswith("["):
        lines, line = iter(()), read_text(path, "JSON")
    for number, text in chain([(first, line)] if line else [], lines):
        for row in _objects(path, number, text):
            yield number, row


def _objects(path: Path, number: int, text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        expected = "a JSON object on every line, or one array of objects"
        raise bad_line(path, number, str(error), expected) from error
    rows = found if isinstance(found, list) else [found]
    for row in rows:
        if not isinstance(row, dict):
            raise bad_line(path, number, str(row), "a JSON object with the names of the columns as keys")
    return rows
