"""CSV, with quoting, and TSV, without: a header, and a record a row. The score is the last column."""

from __future__ import annotations

import csv
import io
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from hfcompress.data.rows import long_fields
from hfcompress.errors import DataError
from hfcompress.scoring.chunks import Chunk, Row
from hfcompress.scoring.columns import Columns
from hfcompress.scoring.formats import RowOptions, TextRows
from hfcompress.scoring.sources import MOST_LINE, Lines, Source


class Record(NamedTuple):
    """The fields of a record, and what the output needs of it."""

    number: int
    fields: list[str]
    content: Any


class _Pause(Exception):
    """Lines pause between two records."""


class _DelimitedRows(TextRows):
    """Base class of CSV and TSV.

    Bytes that are not UTF-8 become surrogates, and are written as they were where they are no text to score.
    """

    def __init__(self, source: Source, options: RowOptions):
        super().__init__(source, options)
        self._head: Record | None = None

    def prepare(self) -> None:
        """Read the header.

        Raises:
            DataError: There is none, or there are no such columns.
        """
        self._read_header(self._records(self.source.lines()))

    def rows(self, lines: Lines) -> Iterator[Row | DataError | None]:
        """Yield a row for each record."""
        records = self._records(lines)
        columns = self._read_header(records)
        names = self._head.fields if self._head else []
        for record in records:
            if not isinstance(record, Record):
                yield record
                continue
            fault = partial(self.fault, record.number)
            if len(record.fields) != len(names):
                expected = f"{len(names)} columns, as in the first line: {', '.join(names)}"
                yield fault(f"{len(record.fields)} columns: {record.fields}", expected)
                continue
            try:
                pair = columns.pair(dict(zip(names, record.fields, strict=True)), fault)
            except DataError as error:
                yield error
            else:
                yield Row(record.number, record.content, *pair)

    def _read_header(self, records: Iterator[Record | DataError | None]) -> Columns:
        head = next((record for record in records if record is not None), None)
        if isinstance(head, DataError):
            raise head
        if head is None:
            raise DataError(
                f"{self.source.name} is empty",
                expected="a first line with the names of the columns",
                remedy="write the file again",
            )
        names = [name.strip() for name in head.fields]
        self._head = head._replace(fields=names)
        self._columns = self.options.names.among(names, self.source.name)
        return self._columns

    @abstractmethod
    def _records(self, lines: Lines) -> Iterator[Record | DataError | None]: ...


class CsvRows(_DelimitedRows):
    """CSV with quoting: fields may have line breaks."""

    def _records(self, lines: Lines) -> Iterator[Record | DataError | None]:
        feed = _Feed(lines)
        reader = csv.reader(feed, strict=True)
        with long_fields(MOST_LINE):
            while True:
                feed.inside = False
                try:
                    fields = next(reader)
                except StopIteration:
                    return
                except _Pause:
                    yield None
                    continue
                except DataError as error:
                    yield error
                    continue
                except csv.Error as error:
                    expected = "quoted fields that end before a comma or the end of the line, with marks inside doubled"
                    yield self.fault(feed.first, f"{error} (up to line {feed.last})", expected)
                    continue
                yield Record(feed.first, fields, fields)
                if feed.paused:
                    feed.paused = False
                    yield None

    def header(self) -> bytes:
        """The names of the columns."""
        assert self._head is not None and self._columns is not None
        return _csv_bytes([[*self._head.fields, self._columns.score]])

    def written(self, chunk: Chunk, scores: Sequence[float | None]) -> bytes:
        """Each record, with quotes where they are needed."""
        rows = zip(chunk.content, scores, strict=True)
        return _csv_bytes([[*fields, repr(score)] for fields, score in rows if score is not None])


class _Feed:
    """The lines as `csv.reader` takes them, with the numbers of those that a record takes."""

    def __init__(self, lines: Lines):
        self.inside = self.paused = False  # of a record, and whether lines paused there
        self.first = self.last = 1
        self._lines = lines

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for line in self._lines:
            if isinstance(line, DataError):
                raise line
            if line is None:
                if not self.inside:
                    raise _Pause
                self.paused = True
                continue
            self.last, text = line
            if not self.inside:
                self.first, self.inside = self.last, True
            return f"{text.decode(errors='surrogateescape')}\n"
        raise StopIteration


def _csv_bytes(rows: list[list[str]]) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode(errors="surrogateescape")


class TsvRows(_DelimitedRows):
    """TSV without quoting: a quotation mark is a character like others, and each line is a record."""

    def _records(self, lines: Lines) -> Iterator[Record | DataError | None]:
        for line in lines:
            if isinstance(line, tuple):
                number, raw = line
                text = raw.decode(errors="surrogateescape").removesuffix("\r")
                yield Record(number, text.split("\t"), text)
            else:
                yield line

    def header(self) -> bytes:
        """The first line, and the name of the new column."""
        assert self._head is not None and self._columns is not None
        return f"{self._head.content}\t{self._columns.score}\n".encode(errors="surrogateescape")

    def written(self, chunk: Chunk, scores: Sequence[float | None]) -> bytes:
        """Each line with its score behind it."""
        rows = zip(chunk.content, scores, strict=True)
        text = "".join(f"{line}\t{score!r}\n" for line, score in rows if score is not None)
        return text.encode(errors="surrogateescape")
