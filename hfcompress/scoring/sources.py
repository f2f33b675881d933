"""Inputs: a file, plain or gzipped, or a stream, whose lines are taken as they come."""

from __future__ import annotations

import codecs
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Thread
from time import monotonic

from hfcompress.data.lines import bad_line, open_bytes
from hfcompress.errors import DataError

STANDARD = Path("-")
BLOCK = 1 << 16
BLOCKS_AHEAD = 32  # of a stream, so that a fast producer waits
FIRST_LINES = 100  # of a file, which are looked at before a model is loaded
MOST_LINE = 1 << 24  # bytes of a line; more is no pair of texts, but perhaps a file without line breaks
Line = tuple[int, bytes]
Lines = Iterator[Line | DataError | None]
"""Number, from 1, and bytes without line break of each line that is not blank; an error for one that is too long; None
when lines of a stream have waited for the time of a flush."""


def is_stream(path: Path) -> bool:
    """Whether a path stands for standard input or output, or is a pipe or a device."""
    return path == STANDARD or (path.exists() and not path.is_file() and not path.is_dir())


class Source:
    """An input.

    Args:
        path: A file; `-`, a pipe or a device for a stream.
        flush_seconds: Longest time that a line of a stream waits for others.

    Raises:
        DataError: There is no such file.
    """

    def __init__(self, path: Path, flush_seconds: float = 0.5):
        self.path, self.flush_seconds = path, flush_seconds
        self.is_stream = is_stream(path)
        self.name = "standard input" if path == STANDARD else str(path)
        if not self.is_stream and not path.is_file():
            raise DataError(
                "There is no such file", value=self.name, expected="a file, or - for a stream", remedy="correct --input"
            )
        self.size = None if self.is_stream else path.stat().st_size
        self.position = 0  # in bytes, compressed if the file is
        self._stopped = False
        self._blocks: Queue[list[bytes | None] | BaseException | None] = Queue(BLOCKS_AHEAD)

    def fingerprint(self) -> str:
        """SHA-256 of a file."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def lines(self) -> Lines:
        """Yield the lines; those of a stream once.

        Raises:
            DataError: The file cannot be read.
        """
        return self._stream_lines() if self.is_stream else self._file_lines()

    def stop(self) -> None:
        """Let `lines` end soon in another thread, which may wait for those of a stream."""
        self._stopped = True
        with suppress(Full):  # then the thread does not wait
            self._blocks.put_nowait(None)

    def _file_lines(self) -> Lines:
        number = 0
        with open_bytes(self.path, "lines") as stream:
            below = getattr(stream, "fileobj", stream)  # of a gzipped file
            for block in _blocks_of(stream.read):
                if self._stopped:
                    return
                self.position = below.tell()
                for line in block:
                    number += 1
                    yield from self._numbered(number, line)

    def _stream_lines(self) -> Lines:
        Thread(target=self._read_stream, daemon=True).start()  # the read cannot be interrupted
        number, deadline = 0, None
        while True:
            try:
                block = self._blocks.get(timeout=None if deadline is None else max(0.0, deadline - monotonic()))
            except Empty:
                deadline = None
                yield None
                continue
            if block is None or self._stopped:
                return
            if isinstance(block, BaseException):
                raise block
            deadline = deadline or monotonic() + self.flush_seconds
            for line in block:
                number += 1
                yield from self._numbered(number, line)
            if monotonic() >= deadline:  # the lines never pause
                deadline = None
                yield None

    def _numbered(self, number: int, line: bytes | None) -> Lines:
        if line is None:
            yield self.fault(number, f"more than {MOST_LINE >> 20} MiB", "lines of texts")
            return
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.isspace() and line:
            yield number, line

    def fault(self, number: int, value: object, expected: str) -> DataError:
        """The error for a bad line."""
        return bad_line(Path(self.name), number, value, expected)

    def _read_stream(self) -> None:
        # Unbuffered: a buffer of the interpreter would be locked by this thread when the process ends.
        try:
            standard = self.path == STANDARD
            with open(sys.stdin.fileno() if standard else self.path, "rb", buffering=0, closefd=not standard) as raw:
                for block in _blocks_of(raw.read):
                    self._blocks.put(block)
        except BaseException as error:  # raised again where the lines are read
            self._blocks.put(error)
        else:
            self._blocks.put(None)


def _blocks_of(read: Callable[[int], bytes]) -> Iterator[list[bytes | None]]:
    """Yield the lines that end in each block that is read; None for one that is too long."""
    parts: list[bytes] = []  # of a line without end yet
    size = 0
    while block := read(BLOCK):
        first, *others = block.split(b"\n")
        size += len(first)
        if size <= MOST_LINE:
            parts.append(first)
        if others:
            yield [b"".join(parts) if size <= MOST_LINE else None, *others[:-1]]
            parts, size = [others[-1]], len(others[-1])
    if size:
        yield [b"".join(parts) if size <= MOST_LINE else None]
