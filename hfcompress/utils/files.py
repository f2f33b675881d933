"""Atomic writing of files and folders."""

from __future__ import annotations

import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hfcompress.errors import OutputError


def write_text(path: Path, text: str) -> Path:
    """Write `text` to a temporary file and rename it to `path`."""
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> Path:
    """Write `content` to a temporary file and rename it to `path`."""
    with replaced_file(path) as temporary:
        temporary.write_bytes(content)
    return path


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file path that replaces `path` when the block ends, or is deleted if it raises.

    Each call has its own temporary path, so two processes can write the same file; the last one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that replaces `path` when the block ends, or is deleted if it raises.

    Links are followed. A folder that cannot be replaced, such as a mounted volume, gets the content instead.

    Raises:
        OutputError: The finished folder cannot replace `path`; the temporary folder is kept.
    """
    target = path.resolve()
    temporary = (target if _stays(target) else target.parent) / f".{target.name}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    try:
        _put(temporary, target)
    except OSError as error:
        raise OutputError(
            "The finished folder cannot be moved to its path",
            value=f"{path}: {error.strerror or error}",
            expected="a writable folder whose files no other program has open",
            remedy=f"take the result from {temporary}, where it is kept until the same command runs again",
        ) from error


def _stays(folder: Path) -> bool:
    """Whether a folder must not be replaced: a mount point, the working directory, or in a read-only parent."""
    return folder.is_dir() and (
        os.path.ismount(folder) or folder == Path.cwd() or not os.access(folder.parent, os.W_OK)
    )


def _put(temporary: Path, target: Path) -> None:
    """Move a folder to `target`, or its content into a `target` that stays, beside files added there meanwhile."""
    stays = temporary.parent == target
    if target.exists() and not stays:
        try:
            shutil.rmtree(target)
        except OSError:
            if not target.is_dir() or any(target.iterdir()):
                raise
            stays = True  # a mount point that `_stays` did not detect: emptied, but not deleted
    if not stays:
        os.replace(temporary, target)
        return
    for new in list(temporary.iterdir()):
        shutil.move(new, target)
    temporary.rmdir()


def size_of(paths: list[Path]) -> int:
    """Total size of the files in bytes."""
    return sum(path.stat().st_size for path in paths)


def deflated_size_of(paths: list[Path]) -> int:
    """Total size in bytes after deflate, the compression of zip and gzip, of each file at level 6."""
    total = 0
    for path in paths:
        compressor = zlib.compressobj(6)
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                total += len(compressor.compress(block))
        total += len(compressor.flush())
    return total
