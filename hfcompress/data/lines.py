"""Reading text files, plain or gzipped, and the error for a malformed line."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from hfcompress.errors import DataError


def read_text(path: Path, what: str = "text") -> str:
    """Read a UTF-8 text file, decompressed if its name ends with `.gz`.

    Args:
        path: The file.
        what: Expected content, for the error message.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:  # OSError: also a file that is not gzipped
        raise DataError(
            f"{path} cannot be read",
            value=f"{type(error).__name__}: {error}",
            expected=f"{what} in UTF-8, gzipped only if the name ends with .gz",
            remedy="check the path, or write the file again",
        ) from error


def bad_line(path: Path, number: int, value: str, expected: str) -> DataError:
    """Return the error for a line; `number` counts from 1."""
    return DataError(f"{path}, line {number}", value=value, expected=expected, remedy="correct or remove this line")
