from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from hfcompress.errors import OutputError
from hfcompress.files import replaced_file, replaced_folder, write_bytes


def replace(path: Path, content: str = "new") -> Path:
    with replaced_folder(path) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "file").write_text(content)
    return aside


def files_in(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for content in ("first", "second"):
        replace(tmp_path / "out" / "deep", content)
        assert files_in(tmp_path) == {"out/deep/inner/file": content}


def test_an_error_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    replace(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), replaced_folder(tmp_path / "out") as aside:
        (aside / "half").write_text("")
        raise KeyboardInterrupt
    assert files_in(tmp_path) == {"out/inner/file": "new"}


def test_the_working_folder_is_filled_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a shell's, and what somebody put there while the command worked is not its own to remove."""
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
    aside = replace(tmp_path / "link")
    assert aside.parent == disk.resolve()
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
    aside = replace(volume)
    assert aside.parent == (volume if known else tmp_path)
    assert files_in(tmp_path) == {"volume/inner/file": "new"} and sorted(os.listdir(tmp_path)) == ["volume"]


def test_what_is_finished_is_kept_where_it_cannot_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match=r"Permission denied.*take the result from .*\.out\.part"):
        replace(tmp_path / "out")
    assert files_in(tmp_path) == {".out.part/inner/file": "new"}


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with replaced_file(path) as first:
        first.write_text("half of the first")
        assert write_bytes(path, b"second").read_bytes() == b"second"
    assert files_in(tmp_path) == {"deep/file": "half of the first"}


def test_a_file_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"before")
    with pytest.raises(OSError, match="full"), replaced_file(tmp_path / "file") as aside:
        aside.write_text("half")
        raise OSError(errno.ENOSPC, "The disk is full")
    assert files_in(tmp_path) == {"file": "before"}
