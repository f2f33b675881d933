"""What all formats of inputs and outputs have in common."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from hfcompress.data.collection import Collection
from hfcompress.errors import DataError
from hfcompress.recipe import ScoreText
from hfcompress.scoring.chunks import Chunk, Row, chunks_of
from hfcompress.scoring.columns import ColumnNames, Columns
from hfcompress.scoring.sources import Lines, Source

FORMATS = {
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "csv": (".csv",),
    "tsv": (".tsv",),
    "parquet": (".parquet",),
    "trec": (".run", ".trec"),
}


def format_of(path: Path) -> str | None:
    """The format that the name of a file stands for; None if it stands for none."""
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    return next((name for name, endings in FORMATS.items() if ending.lower() in endings), None)


@dataclass(frozen=True)
class RowOptions:
    """How rows are read.

    Attributes:
        names: Names of the columns.
        chunk_pairs: Pairs that are scored together.
        strict: End at the first bad line.
        collection: Texts of the ids in a run file.
        score_text: Format of the BM25 scores that the model reads before each document of a run; None for none.
    """

    names: ColumnNames = field(default_factory=ColumnNames)
    chunk_pairs: int = 4096
    strict: bool = False
    collection: Collection | None = None
    score_text: ScoreText | None = None


class RowFormat(ABC):
    """Reads chunks of rows from an input, and writes them with their scores.

    Args:
        source: The input.
        options: How its rows are read.
    """

    streams: ClassVar[bool] = True  # whether it can be read from a stream, and written to one

    def __init__(self, source: Source, options: RowOptions):
        self.source, self.options = source, options
        self._columns: Columns | None = None

    @property
    def size(self) -> int | None:
        """Size of the input in the unit of `Chunk.position`: bytes, unless `unit` is another; None if unknown."""
        return self.source.size

    @property
    def unit(self) -> str:
        """Unit of `size`."""
        return "B"

    @property
    def columns(self) -> Columns | None:
        """The columns, once they are known; None for a format without."""
        return self._columns

    def prepare(self) -> None:  # noqa: B027
        """Check the beginning of a file, before a model is loaded.

        Raises:
            DataError: It cannot be scored.
        """

    @abstractmethod
    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks of the input, the same ones each time if it is a file.

        Raises:
            DataError: The input cannot be read, or a line is bad and `options.strict` is set.
        """

    def header(self) -> bytes:
        """What the output begins with; asked for behind the first chunk."""
        return b""

    @abstractmethod
    def written(self, chunk: Chunk, scores: Sequence[float | None]) -> bytes:
        """The rows of a chunk with their scores, without rows whose score is None."""

    def complete(self, part: Path, target: Path) -> None:
        """Make the output of a file to which `header` and all that `written` returned were written.

        Args:
            part: This file.
            target: The output.
        """
        os.replace(part, target)

    @abstractmethod
    def fault(self, number: int, value: object, expected: str) -> DataError:
        """The error for a bad row.

        Args:
            number: Its line, from 1.
            value: The value received.
            expected: What was expected.
        """


class TextRows(RowFormat):
    """Base class of formats whose rows are lines."""

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks of the input, the same ones each time if it is a file.

        Raises:
            DataError: The input cannot be read, or a line is bad and `options.strict` is set.
        """
        options = self.options
        rows = self.rows(self.source.lines())
        return chunks_of(rows, options.chunk_pairs, options.strict, lambda: self.source.position)

    @abstractmethod
    def rows(self, lines: Lines) -> Iterator[Row | DataError | None]:
        """Yield the rows of lines, the errors of bad ones, and pauses."""

    def fault(self, number: int, value: object, expected: str) -> DataError:
        """The error for a bad line; arguments are those of `RowFormat.fault`."""
        return self.source.fault(number, value, expected)
