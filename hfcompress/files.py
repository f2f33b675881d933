"""Writing files so that an interruption never leaves half of one."""

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
    """Write `text` aside and move it into place."""
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> Path:
    """Write `content` aside and move it into place."""
    with replaced_file(path) as aside:
        aside.write_bytes(content)
    return path


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a path for a file that takes the place of `path` when the block ends without an error, and else goes.

    No two calls get the same path, so that two processes can write one file: it is that of the last.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield aside
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `path` when the block ends without an error, and else goes.

    A link is followed. A folder that has to stay where it is, such as a mounted volume, gets the content instead.

    Raises:
        OutputError: The folder is made, but cannot be put in its place; it is kept then.
    """
    target = path.resolve()
    aside = (target if _stays(target) else target.parent) / f".{target.name}.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    try:
        _put(aside, target)
    except OSError as error:
        raise OutputError(
            "The finished folder cannot be put in its place",
            value=f"{path}: {error.strerror or error}",
            expected="a folder that can be written, and whose files no other program holds",
            remedy=f"take the result from {aside}, where it is kept until the same command runs again",
        ) from error


def _stays(folder: Path) -> bool:
    """Whether a folder itself cannot be replaced, or must not: a volume, the working folder, one in a locked parent."""
    return folder.is_dir() and (
        os.path.ismount(folder) or folder == Path.cwd() or not os.access(folder.parent, os.W_OK)
    )


def _put(aside: Path, target: Path) -> None:
    """Move a folder to where another one may be; where that one stays, its content beside what has come there since."""
    stays = aside.parent == target
    if target.exists() and not stays:
        try:
            shutil.rmtree(target)
        except OSError:
            if not target.is_dir() or any(target.iterdir()):
                raise
            stays = True  # a volume that does not look like one: emptied, but still there
    if not stays:
        os.replace(aside, target)
        return
    for new in list(aside.iterdir()):
        shutil.move(new, target)
    aside.rmdir()


def size_of(paths: list[Path]) -> int:
    """Bytes on disk of the files given."""
    return sum(path.stat().st_size for path in paths)


def deflated_size_of(paths: list[Path]) -> int:
    """Bytes that the files given take under deflate, the compression of zip and gzip, each by itself at level 6."""
    total = 0
    for path in paths:
        compressor = zlib.compressobj(6)
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                total += len(compressor.compress(block))
        total += len(compressor.flush())
    return total
