"""Read files that may be damaged: truncated, empty, of another type, or pointers of Git LFS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from hfcompress.errors import HfCompressError, ModelError

ErrorT = TypeVar("ErrorT", bound=HfCompressError)

LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # begins the text that stands for a file in a Git repository


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is a pointer of Git LFS, which a clone without `git lfs` contains instead of the file."""
    with path.open("rb") as stream:
        return stream.read(len(LFS_POINTER)) == LFS_POINTER


def require_content(path: Path, error: type[HfCompressError] = ModelError) -> None:
    """Check that a file is neither empty nor a pointer of Git LFS.

    Args:
        path: The file.
        error: Class of the error.

    Raises:
        HfCompressError: It is one of them, or cannot be read.
    """
    try:
        empty, pointer = not path.stat().st_size, is_lfs_pointer(path)
    except OSError as failed:
        raise damaged(path, failed, "a readable file", error=error) from failed
    if pointer:
        raise error(
            f"The file {path} was not downloaded",
            value="a pointer of Git LFS",
            expected=f"the content of {path.name}",
            remedy="run `git lfs pull` in the folder, or download the model with `hf download`",
        )
    if empty:
        raise damaged(path, "an empty file", f"the content of {path.name}", error=error)


def read_object(path: Path, error: type[HfCompressError] = ModelError) -> dict[str, Any]:
    """Read a JSON file that contains an object.

    Args:
        path: The file.
        error: Class of the error.

    Raises:
        HfCompressError: The file cannot be read, is damaged, or contains something else.
    """
    content: dict[str, Any] = _read(path, dict, "a JSON object", error)
    return content


def read_list(path: Path, error: type[HfCompressError] = ModelError) -> list[Any]:
    """Read a JSON file that contains a list; arguments and errors are those of `read_object`."""
    content: list[Any] = _read(path, list, "a JSON list", error)
    return content


def _read(path: Path, kind: type, expected: str, error: type[HfCompressError]) -> Any:
    require_content(path, error)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as failed:
        raise damaged(path, failed, f"{expected} in UTF-8", error=error) from failed
    if not isinstance(content, kind):
        raise damaged(path, f"JSON of type {type(content).__name__}", expected, error=error)
    return content


def damaged(
    path: Path,
    fault: object,
    expected: str,
    remedy: str = "restore the file: copy or download it again, or save it anew",
    error: type[ErrorT] = ModelError,  # type: ignore[assignment]  # the default of a generic argument
) -> ErrorT:
    """The error for a file that cannot be used.

    Args:
        path: The file.
        fault: What is wrong with it: a description, or the exception that reading it raised.
        expected: What was expected.
        remedy: What the user can do.
        error: Class of the error.
    """
    return error(f"The file {path} cannot be used", value=one_line(fault), expected=expected, remedy=remedy)


def one_line(fault: object) -> str:
    """The message of an exception, with its class if it is not a message by itself, in one line."""
    text = " ".join(str(fault).split())
    bare = isinstance(fault, (KeyError, AssertionError, ZeroDivisionError)) or not text
    return f"{type(fault).__name__}: {text}" if isinstance(fault, BaseException) and bare else text
