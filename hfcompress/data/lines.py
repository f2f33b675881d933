"""Reading text files line by line, plain or gzipped, and the error for a malformed line."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from hfcompress.errors import DataError

NO_QUOTES = "tab-separated text without quoting, in which a quotation mark is a character like others"


@contextmanager
def open_bytes(path: Path, what: str = "text") -> Iterator[BinaryIO]:
    """Open a file, decompressed if its name ends with `.gz`.

    Args:
        path: The file.
        what: Expected content, for the error message.

    Raises:
        DataError: The file cannot be read; raised from the `with` block too.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as raw:
            yield cast(BinaryIO, raw)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:  # OSError: also a file that is not gzipped
        raise DataError(
            f"{path} cannot be read",
            value=f"{type(error).__name__}: {error}",
            expected=f"{what} in UTF-8, gzipped only if the name ends with .gz",
            remedy="check the path, or write the file again",
        ) from error


@contextmanager
def open_text(path: Path, what: str = "text", newline: str | None = None) -> Iterator[io.TextIOBase]:
    r"""Open a UTF-8 text file, decompressed if its name ends with `.gz`, without its byte-order mark.

    Args:
        path: The file.
        what: Expected content, for the error message.
        newline: As for `open`: None ends lines at `\n`, `\r\n` and `\r` alike, in one file too; "" changes no line end.

    Raises:
        DataError: The file cannot be read; raised from the `with` block too.
    """
    with open_bytes(path, what) as raw:
        yield io.TextIOWrapper(raw, encoding="utf-8-sig", newline=newline)


def read_text(path: Path, what: str = "text") -> str:
    r"""Read a UTF-8 text file as `open_text` opens it, with `\n` at the end of every line.

    Args:
        path: The file.
        what: Expected content, for the error message.

    Raises:
        DataError: The file cannot be read.
    """
    with open_text(path, what) as stream:
        return stream.read()


def read_lines(path: Path, what: str = "text") -> Iterator[tuple[int, str]]:
    """Yield the number, from 1, and the text of each line that is not blank. Only line breaks end a line.

    Args:
        path: The file.
        what: Expected content, for the error message.

    Raises:
        DataError: The file cannot be read.
    """
    with open_text(path, what) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, line.removesuffix("\n")


def bad_line(
    path: Path, number: int, value: Any, expected: str, remedy: str = "correct or remove this line"
) -> DataError:
    """Return the error for a line; `number` counts from 1."""
    return DataError(f"{path}, line {number}", value=value, expected=expected, remedy=remedy)


def unquoted(path: Path, lines: Iterable[tuple[int, list[str]]], ids: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a tab-separated file unchanged, and refuse a file that was written with quoting at its end.

    Tab-separated files of BEIR and TREC have no quoting, so texts may begin with a quotation mark. Programs that write
    CSV with tabs quote every field that has a quotation mark, and double the marks inside. A file in which all such
    fields look like that, at least one of them with doubled marks or in a place for ids or names of columns, can be
    read in either way.

    Args:
        path: The file, for the error message.
        lines: Number and fields of each line.
        ids: Whether the first field of a line is an id; otherwise only those of the first line are names.

    Raises:
        DataError: The file was written with quoting. The error names the first line that shows it.
    """
    shown: tuple[int, str] | None = None
    literal = False
    for number, fields in lines:
        for index, field in enumerate(fields if not literal else ()):
            if '"' not in field:
                continue
            inside = re.fullmatch(r'"((?:[^"]|"")*)"', field.strip())
            literal = literal or inside is None
            if inside and not shown and ('"' in inside[1] or (index == 0 and (ids or number == 1))):
                shown = number, field
        yield number, fields
    if shown and not literal:
        remedy = "write the file without quoting (pandas: quoting=csv.QUOTE_NONE)" + ("" if ids else ", or as .csv")
        raise bad_line(path, *shown, NO_QUOTES, remedy)
