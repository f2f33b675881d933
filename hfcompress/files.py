"""Writing files so that an interruption never leaves half of one."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: Path, text: str) -> Path:
    """Write `text` aside and move it into place."""
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> Path:
    """Write `content` aside and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    aside.write_bytes(content)
    os.replace(aside, path)
    return path


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `path` when the block ends without an error, and else goes."""
    aside = path.with_name(f".{path.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if path.exists():
        shutil.rmtree(path)
    os.replace(aside, path)


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
