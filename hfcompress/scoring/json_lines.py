"""JSON lines: an object a line. The score is added at its end; all else stays as it is written, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NoReturn

from hfcompress.errors import DataError
from hfcompress.scoring.chunks import Chunk, Row
from hfcompress.scoring.formats import TextRows
from hfcompress.scoring.sources import FIRST_LINES, Lines


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(parse_constant=_no_constant)


class JsonLines(TextRows):
    """JSON lines. The columns are the fields of the first lines, of a stream those of its first object."""

    def prepare(self) -> None:
        """Choose the fields by the first lines of a file, of which at least one must be an object.

        Raises:
            DataError: There is none, or there are no such fields.
        """
        fields: dict[str, None] = {}
        fault: DataError | None = None
        for line in islice(self.source.lines(), FIRST_LINES):
            found = line if isinstance(line, DataError) else self._object(*line) if line else None
            if isinstance(found, dict):
                fields |= dict.fromkeys(found)
            fault = fault or (found if isinstance(found, DataError) else None)
        if fields:
            self._columns = self.options.names.among(list(fields), self.source.name)
        elif fault:
            raise fault

    def rows(self, lines: Lines) -> Iterator[Row | DataError | None]:
        """Yield a row for each object."""
        for line in lines:
            if not isinstance(line, tuple):
                yield line
                continue
            number, text = line
            found = self._object(number, text)
            yield found if isinstance(found, DataError) else self._row(number, text, found)

    def _object(self, number: int, line: bytes) -> dict[str, Any] | DataError:
        try:
            found = DECODER.decode(line.decode())
        except (ValueError, RecursionError) as error:  # ValueError: also what is not UTF-8
            return self.fault(number, f"{type(error).__name__}: {error}", "a JSON object in UTF-8")
        if isinstance(found, dict):
            return found
        return self.fault(
            number, found, "a JSON object, with the names of the columns as keys (jq -c '.[]' for arrays)"
        )

    def _row(self, number: int, line: bytes, values: dict[str, Any]) -> Row | DataError:
        if self._columns is None:
            self._columns = self.options.names.among(list(values), f"{self.source.name}, line {number},")
        fault = partial(self.fault, number)
        if self._columns.score in values:
            return fault(list(values), f"no field {self._columns.score!r}; --score-column chooses another name")
        try:
            return Row(number, line, *self._columns.pair(values, fault))
        except DataError as error:
            return error

    def written(self, chunk: Chunk, scores: Sequence[float | None]) -> bytes:
        """Each line with the score before its closing brace."""
        assert self._columns is not None
        name = json.dumps(self._columns.score).encode()
        return b"".join(
            b"%b, %b: %b}\n" % (line.rstrip()[:-1].rstrip(), name, repr(score).encode())
            for line, score in zip(chunk.content, scores, strict=True)
            if score is not None
        )
