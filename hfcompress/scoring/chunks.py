"""Chunks of rows: what is read, scored and written at a time, so that memory is bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hfcompress.errors import DataError
from hfcompress.rankers.base import Pair

MOST_CHARACTERS = 1 << 21  # of the texts of a chunk, some 500,000 tokens


class Row(NamedTuple):
    """A row of an input that can be scored.

    Attributes:
        number: Its line, from 1.
        content: What the output needs of it, in a form that its format chooses.
        query: The query.
        document: The document.
        last: Whether a chunk may end behind this row.
    """

    number: int
    content: Any
    query: str
    document: str
    last: bool = True


@dataclass(frozen=True)
class Chunk:
    """Rows that are scored together.

    Attributes:
        pairs: Query and document of each row.
        content: The rows, in the form of their format.
        numbers: Line of each row, from 1.
        faults: Bad lines among and before these rows.
        position: Place in the input behind this chunk, for a progress bar.
    """

    pairs: Sequence[Pair]
    content: Any
    numbers: Sequence[int]
    faults: Sequence[DataError] = ()
    position: int = 0


def chunks_of(
    rows: Iterable[Row | DataError | None], size: int, strict: bool = False, position: Callable[[], int] = lambda: 0
) -> Iterator[Chunk]:
    """Group rows into chunks, whose content is the list of the contents of their rows.

    The same rows always give the same chunks, unless a pause cuts one.

    Args:
        rows: Rows; the error of each bad line in its place; None for a pause, at which what is there is a chunk.
        size: Rows of a chunk. Long texts make a chunk smaller.
        strict: Raise the error of a bad line, behind a chunk of the rows before it.
        position: Returns the place in the input.

    Raises:
        DataError: A line is bad, and `strict` is set.
    """
    found: list[Row] = []
    faults: list[DataError] = []
    characters = 0
    for row in rows:
        if isinstance(row, Row):
            found.append(row)
            characters += len(row.query) + len(row.document)
            full = row.last and (len(found) >= size or characters >= MOST_CHARACTERS)
        elif row is None:
            full = bool(found or faults)
        else:
            if strict:
                if found:
                    yield _chunk(found, faults, position())
                raise row
            faults.append(row)
            full = len(faults) >= size
        if full and (not found or found[-1].last):
            yield _chunk(found, faults, position())
            found, faults, characters = [], [], 0
    if found or faults:
        yield _chunk(found, faults, position())


def _chunk(rows: list[Row], faults: list[DataError], position: int) -> Chunk:
    return Chunk(
        [(row.query, row.document) for row in rows],
        [row.content for row in rows],
        [row.number for row in rows],
        faults,
        position,
    )
