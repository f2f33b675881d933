"""Parquet: tables with any other columns, whose types and metadata are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from hfcompress.errors import DataError
from hfcompress.rankers.base import BatchedRanker
from hfcompress.scoring.chunks import Chunk
from hfcompress.scoring.columns import Columns, Fault
from hfcompress.scoring.engine import FaultOfRow, scores_of
from hfcompress.scoring.formats import RowFormat, RowOptions
from hfcompress.scoring.sources import Source
from hfcompress.utils.files import replaced_file

CHUNK_BYTES = 1 << 21  # of the columns of a chunk, about
FEWEST_ROWS = 64  # of a chunk, however long they are
GROUP_ROWS, GROUP_BYTES = 1 << 16, 1 << 26  # of a row group that is written
UNREADABLE = object()


class ParquetRows(RowFormat):
    """A Parquet file. A scored chunk is a stream in Arrow's IPC format until all chunks are there."""

    streams = False

    def __init__(self, source: Source, options: RowOptions):
        super().__init__(source, options)
        try:
            with pyarrow.parquet.ParquetFile(source.path) as file:
                self._schema, self._metadata = file.schema_arrow, file.metadata
        except (OSError, pyarrow.ArrowException) as error:
            raise self._unreadable(error) from error
        self._known = options.names.among(self._schema.names, source.name)

    @property
    def size(self) -> int | None:
        """Number of rows."""
        return self._metadata.num_rows

    @property
    def unit(self) -> str:
        """Rows."""
        return "row"

    @property
    def columns(self) -> Columns:
        """The columns."""
        return self._known

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks of the table.

        Raises:
            DataError: The file is damaged, or a row is bad and `options.strict` is set.
        """
        first = 1
        try:
            # Columns are read page by page, so that memory does not depend on the size of row groups.
            with pyarrow.parquet.ParquetFile(self.source.path, pre_buffer=False, buffer_size=1 << 20) as file:
                for batch in file.iter_batches(self._chunk_rows(), use_threads=False):
                    table = pyarrow.Table.from_batches([batch], self._schema)
                    chunk = table_chunk(table, self._known, self.fault, first)
                    first += batch.num_rows
                    if chunk.faults and self.options.strict:
                        raise chunk.faults[0]
                    yield chunk
        except (OSError, pyarrow.ArrowException) as error:
            raise self._unreadable(error) from error

    def written(self, chunk: Chunk, scores: Sequence[float | None]) -> bytes:
        """The table with the scores as a stream of Arrow."""
        return _stream(with_scores(chunk.content, scores, self._known.score))

    def complete(self, part: Path, target: Path) -> None:
        """Convert the streams of all chunks into a Parquet file with larger row groups."""
        empty = with_scores(self._schema.empty_table(), [], self._known.score)
        with replaced_file(target) as temporary, pyarrow.parquet.ParquetWriter(temporary, empty.schema) as writer:
            waiting: list[pyarrow.Table] = []
            for table in _tables(part):
                waiting.append(table)
                rows, size = sum(map(len, waiting)), sum(each.nbytes for each in waiting)
                if rows >= GROUP_ROWS or size >= GROUP_BYTES:
                    writer.write_table(pyarrow.concat_tables(waiting))
                    waiting = []
            writer.write_table(pyarrow.concat_tables(waiting or [empty]))
        part.unlink()

    def fault(self, number: int, value: object, expected: str) -> DataError:
        """The error for a bad row; arguments are those of `RowFormat.fault`."""
        return _bad_row(f"{self.source.name}, row {number}", value, expected)

    def _chunk_rows(self) -> int:
        groups = [self._metadata.row_group(index) for index in range(self._metadata.num_row_groups)]
        mean = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=1)
        return min(self.options.chunk_pairs, max(FEWEST_ROWS, CHUNK_BYTES // max(1, mean)))

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(
            f"{self.source.name} cannot be read",
            value=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            expected="a complete Parquet file",
            remedy="check the path, or write the file again",
        )


def score_table(
    ranker: BatchedRanker, table: pyarrow.Table, columns: Columns, activation: bool = False
) -> tuple[pyarrow.Table, list[DataError]]:
    """Score the rows of a table that fits into memory, as a part of a larger one.

    Args:
        ranker: The ranker.
        table: A table with a pair in each row.
        columns: Its columns.
        activation: Apply the activation of the checkpoint; by default scores are raw logits.

    Returns:
        The table without its bad rows and with a column of scores, float32, and the error of each bad row.
    """

    def fault(number: int, value: object, expected: str) -> DataError:
        return _bad_row(f"row {number}", value, expected)

    chunk = table_chunk(table, columns, fault)
    scores, faults = scores_of(ranker, chunk, ranker.encode(chunk.pairs), activation, fault)
    return with_scores(chunk.content, scores, columns.score), [*chunk.faults, *faults]


def table_chunk(table: pyarrow.Table, columns: Columns, fault: FaultOfRow, first: int = 1) -> Chunk:
    """Read the pairs of a table.

    Args:
        table: The table.
        columns: Its columns.
        fault: Makes the error of a row from its number, a value, and what was expected.
        first: Number of the first row.

    Returns:
        A chunk whose content is the table without its bad rows.
    """
    names = [name for name in (columns.query, columns.document, columns.title) if name is not None]
    values = [_values(table.column(name)) for name in names]
    pairs, kept, faults = [], [], []
    for index, row in enumerate(zip(*values, strict=True)):
        found = _pair(columns, dict(zip(names, row, strict=True)), partial(fault, first + index))
        if isinstance(found, DataError):
            faults.append(found)
        else:
            pairs.append(found)
            kept.append(index)
    content = _taken(table, kept) if faults else table
    return Chunk(pairs, content, [first + index for index in kept], faults, first - 1 + len(table))


def _bad_row(where: str, value: object, expected: str) -> DataError:
    return DataError(where, value=value, expected=expected, remedy="correct or remove this row")


def _pair(columns: Columns, values: dict[str, Any], fault: Fault) -> tuple[str, str] | DataError:
    if any(value is UNREADABLE for value in values.values()):
        return fault("bytes that are not UTF-8", "text in UTF-8")
    try:
        return columns.pair(values, fault)
    except DataError as error:
        return error


def _values(column: pyarrow.ChunkedArray) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_value(each) for each in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return UNREADABLE


def with_scores(table: pyarrow.Table, scores: Sequence[float | None], name: str) -> pyarrow.Table:
    """Add a column of scores, float32, and leave out the rows whose score is None.

    Args:
        table: The table.
        scores: A score for each row.
        name: Name of the column.
    """
    column = pyarrow.array(scores, pyarrow.float32())
    if column.null_count:
        kept = [index for index, score in enumerate(scores) if score is not None]
        table, column = _taken(table, kept), column.drop_null()
    return table.append_column(pyarrow.field(name, pyarrow.float32()), column)


def _taken(table: pyarrow.Table, kept: list[int]) -> pyarrow.Table:
    return table.take(pyarrow.array(kept, pyarrow.int64()))


def _stream(table: pyarrow.Table) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _tables(part: Path) -> Iterator[pyarrow.Table]:
    """Yield the tables of streams that were written one behind the other."""
    size = part.stat().st_size
    with part.open("rb") as file:
        while file.tell() < size:
            with pyarrow.ipc.open_stream(file) as reader:
                yield reader.read_all()
