"""Atomic writing of files and folders, and their sizes."""

from __future__ import annotations

import errno
import os
import random
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest

from hfcompress.errors import OutputError
from hfcompress.utils.files import deflated_size_of, replaced_file, replaced_folder, size_of, write_bytes


def replace(path: Path, content: str = "new") -> Path:
    with replaced_folder(path) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text(content)
    return temporary


def files_in(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for content in ("first", "second"):
        replace(tmp_path / "out" / "deep", content)
        assert files_in(tmp_path) == {"out/deep/inner/file": content}


def test_an_error_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    replace(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), replaced_folder(tmp_path / "out") as temporary:
        (temporary / "half").write_text("")
        raise KeyboardInterrupt
    assert files_in(tmp_path) == {"out/inner/file": "new"}


def test_the_working_folder_is_filled_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the folder of a shell, and files that others added meanwhile are kept."""
    (tmp_path / "log.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    number = tmp_path.stat().st_ino
    replace(Path())
    assert files_in(tmp_path) == {"inner/file": "new", "log.txt": "mine"}
    assert tmp_path.stat().st_ino == number
    with pytest.raises(OutputError, match="take the result from"):
        replace(Path(), "newer")
    assert Path("inner/file").read_text() == "new"


def test_a_link_is_followed(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (disk / "out").mkdir(parents=True)
    (tmp_path / "link").symlink_to(disk / "out")
    temporary = replace(tmp_path / "link")
    assert temporary.parent == disk.resolve()
    assert (tmp_path / "link").is_symlink() and files_in(disk) == {"out/inner/file": "new"}


@pytest.mark.parametrize("known", [True, False])
def test_a_volume_is_filled_and_stays(known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = tmp_path / "volume"
    (volume / "old").mkdir(parents=True)
    rmtree = shutil.rmtree

    def busy(path: Any, *args: Any, **kwargs: Any) -> None:
        if Path(path) == volume:
            for inner in volume.iterdir():
                rmtree(inner)
            raise OSError(errno.EBUSY, "Device or resource busy", str(path))
        rmtree(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", busy)
    monkeypatch.setattr(os.path, "ismount", lambda path: known and Path(path) == volume)
    temporary = replace(volume)
    assert temporary.parent == (volume if known else tmp_path)
    assert files_in(tmp_path) == {"volume/inner/file": "new"} and sorted(os.listdir(tmp_path)) == ["volume"]


def test_a_finished_folder_that_cannot_be_moved_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match=r"Permission denied.*take the result from .*\.out\.part"):
        replace(tmp_path / "out")
    assert files_in(tmp_path) == {".out.part/inner/file": "new"}


def test_two_writers_of_one_file_do_not_collide(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with replaced_file(path) as first:
        first.write_text("half of the first")
        assert write_bytes(path, b"second").read_bytes() == b"second"
    assert files_in(tmp_path) == {"deep/file": "half of the first"}


def test_a_file_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"before")
    with pytest.raises(OSError, match="full"), replaced_file(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "The disk is full")
    assert files_in(tmp_path) == {"file": "before"}


def test_sizes_and_zeros_that_deflate(tmp_path: Path) -> None:
    paths = []
    for share in (0.0, 0.5, 0.9):
        rng = random.Random(0)
        content = bytes(0 if rng.random() < share else rng.randrange(256) for _ in range(16_384))
        paths.append(write_bytes(tmp_path / str(share), content))
    sizes = [deflated_size_of([path]) for path in paths]
    assert sizes == sorted(sizes, reverse=True) and sizes[2] < sizes[0] / 3
    assert sizes == [len(zlib.compress(path.read_bytes(), 6)) for path in paths]
    assert deflated_size_of(paths) == sum(sizes) and size_of(paths) == 3 * 16_384
