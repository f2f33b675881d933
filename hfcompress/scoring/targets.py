"""Outputs: a file that is moved into place when it is complete and can be resumed until then, or a stream."""

from __future__ import annotations

import gzip
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hfcompress.errors import OutputError
from hfcompress.scoring.formats import RowFormat
from hfcompress.scoring.sources import STANDARD
from hfcompress.utils.files import write_text
from hfcompress.utils.json_files import read_object

FORMAT = 1
COMPRESSION = 6


class Counts(NamedTuple):
    """What is done.

    Attributes:
        chunks: Number of chunks.
        pairs: Number of pairs with a score.
        bad_lines: Number of bad lines.
        size: Bytes of the file with the chunks.
    """

    chunks: int = 0
    pairs: int = 0
    bad_lines: int = 0
    size: int = 0


class Target(ABC):
    """An output.

    Attributes:
        done: What is in it.
    """

    done = Counts()

    @abstractmethod
    def append(self, data: bytes, pairs: int, bad_lines: int) -> None:
        """Write a chunk.

        Args:
            data: What is written.
            pairs: Number of its pairs with a score.
            bad_lines: Number of its bad lines.
        """

    def complete(self, rows: RowFormat) -> None:  # noqa: B027
        """Finish the output.

        Args:
            rows: The format.
        """

    def discard(self) -> None:  # noqa: B027
        """Delete what is not complete."""

    def close(self) -> None:  # noqa: B027
        """Close what is open."""

    def _count(self, pairs: int, bad_lines: int, size: int) -> None:
        done = self.done
        self.done = Counts(done.chunks + 1, done.pairs + pairs, done.bad_lines + bad_lines, done.size + size)


class StreamTarget(Target):
    """Standard output, a pipe or a device. Each chunk is there for its reader when `append` returns.

    Args:
        path: `-`, or the path.
    """

    def __init__(self, path: Path):
        standard = path == STANDARD
        # Unbuffered, so that nothing is left for a reader that goes away.
        self._stream = open(sys.stdout.fileno() if standard else path, "wb", buffering=0, closefd=not standard)  # noqa: SIM115

    def append(self, data: bytes, pairs: int, bad_lines: int) -> None:
        """Write a chunk.

        Raises:
            BrokenPipeError: The reader is gone.
        """
        rest = memoryview(data)
        while rest:
            rest = rest[self._stream.write(rest) :]
        self._count(pairs, bad_lines, len(data))

    def close(self) -> None:
        """Close the stream, unless it is that of the process."""
        self._stream.close()


class FileTarget(Target):
    """A file. Chunks are in `NAME.part` beside it, and what they are in `NAME.part.json`, until all are there.

    Args:
        path: The file; its content is compressed if the name ends with `.gz`.
        settings: All that scores depend on, to resume; None for an input that cannot be read again.
        resume: Go on behind the last complete chunk of an interrupted call.

    Raises:
        OutputError: There are chunks of an interrupted call and not `resume`, or they have other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any] | None, resume: bool = False):
        self.path, self._settings = path, settings
        self.part = path.with_name(f"{path.name}.part")
        self._state = path.with_name(f"{path.name}.part.json")
        if self.part.exists() and not resume:
            raise OutputError(
                "The output has chunks of an interrupted call",
                value=str(self.part),
                expected="--resume, which goes on behind them" if settings else "none, since a stream is not resumed",
                remedy=f"{'add --resume, or ' if settings else 'move or '}delete {self.part} to start over",
            )
        self.done = self._read_state() if self.part.exists() else Counts()

    def append(self, data: bytes, pairs: int, bad_lines: int) -> None:
        """Write a chunk and then what is done, so that an interruption at any time loses one chunk at most."""
        if self.path.suffix == ".gz":
            data = gzip.compress(data, COMPRESSION, mtime=0)
        first = not self.done.chunks
        if first:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.part.open("wb" if first else "r+b") as stream:
            stream.truncate(self.done.size)  # without a chunk whose writing was interrupted
            stream.seek(self.done.size)
            stream.write(data)
        self._count(pairs, bad_lines, len(data))
        if self._settings is not None:
            record = {"format": FORMAT, "settings": dict(self._settings), "done": self.done._asdict()}
            write_text(self._state, json.dumps(record))

    def complete(self, rows: RowFormat) -> None:
        """Move the file into place."""
        os.truncate(self.part, self.done.size)
        rows.complete(self.part, self.path)
        self._state.unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete the chunks."""
        self.part.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

    def _read_state(self) -> Counts:
        remedy = f"delete {self.part} to start over"
        if not self._state.is_file():  # interrupted in its first chunk
            return Counts()
        record = read_object(self._state, OutputError)
        require_same(record, self._settings or {}, self.part)
        done = Counts(**record["done"])
        if self.part.stat().st_size < done.size:
            raise OutputError(
                "Chunks of the interrupted call are missing",
                value=f"{self.part} has {self.part.stat().st_size} bytes",
                expected=f"at least {done.size} bytes",
                remedy=remedy,
            )
        return done


def require_same(record: Mapping[str, Any], settings: Mapping[str, Any], part: Path) -> None:
    """Check that an interrupted call can be resumed.

    Args:
        record: What it wrote: `format` and `settings`.
        settings: All that scores depend on.
        part: What is to be deleted to start over.

    Raises:
        OutputError: Another version wrote it, or it had other settings.
    """
    remedy = f"delete {part} to start over"
    settings = json.loads(json.dumps(settings))
    before = record.get("settings")
    if record.get("format") != FORMAT or not isinstance(before, dict):
        raise OutputError("Another version wrote these chunks", value=str(part), expected="this version", remedy=remedy)
    if changed := [name for name in {**before, **settings} if before.get(name) != settings.get(name)]:
        raise OutputError(
            "The interrupted call had another input, model or other settings",
            value="; ".join(f"{name}: {before.get(name)} then, {settings.get(name)} now" for name in changed),
            expected="the same ones",
            remedy=f"call it as before, or {remedy}",
        )
