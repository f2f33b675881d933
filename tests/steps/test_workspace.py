"""Which steps of a run are kept, and what is left of the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from hfcompress.errors import OutputError
from hfcompress.steps import workspace as module
from hfcompress.steps.workspace import Workspace


def opened(out: Path) -> Workspace:
    workspace = Workspace(out, resume=True)
    workspace.begin()
    return workspace


def write(text: str = "") -> Callable[[Path, Path], None]:
    def work(folder: Path, partial: Path) -> None:
        partial.mkdir(exist_ok=True)
        (folder / "result").write_text(text)

    return work


def interrupt(folder: Path, partial: Path) -> None:
    partial.mkdir(exist_ok=True)
    raise KeyboardInterrupt


def partial(out: Path) -> list[str]:
    """Steps with partial work."""
    return [path.name[:-13] for path in (out / ".hfcompress").iterdir() if len(path.name.rpartition("-")[2]) == 12]


@pytest.mark.parametrize("package", ["hfcompress", "transformers"])
def test_another_version_does_the_steps_again(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reused = []
    for version in ("1", "1", "2"):
        monkeypatch.setattr(module, "versions", lambda version=version: {package: version})
        workspace = opened(tmp_path)
        workspace.step("teacher", [], write())
        reused.append(workspace.steps[0].reused)
    assert reused == [False, True, False]


def test_partial_work_goes_and_steps_with_a_longer_name_stay(tmp_path: Path) -> None:
    for name in ("recover-1", "recover", "recover-1", "recover-2"):
        opened(tmp_path).step(name, [], write(name))
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path).step("recover-1", ["other"], interrupt)
    assert partial(tmp_path) == ["recover-1"]
    opened(tmp_path).step("recover", ["other"], write())
    assert partial(tmp_path) == ["recover-1"]
    assert {path.name for path in (tmp_path / ".hfcompress").iterdir()} > {"recover", "recover-1", "recover-2"}
    opened(tmp_path).step("recover-1", ["a third"], write())
    assert partial(tmp_path) == []


def test_an_interruption_in_the_work_keeps_the_step_of_before(tmp_path: Path) -> None:
    opened(tmp_path).step("teacher", ["before"], write("before"))
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path).step("teacher", ["after"], interrupt)
    workspace = opened(tmp_path)
    folder, _ = workspace.step("teacher", ["before"], interrupt)
    assert workspace.steps[0].reused and (folder / "result").read_text() == "before"


def test_a_folder_is_never_taken_for_the_result_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path).step("teacher", ["before"], write("before"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module.time, "perf_counter", Mock(side_effect=[0.0, KeyboardInterrupt]))
        opened(tmp_path).step("teacher", ["after"], write("after"))
    folder, _ = opened(tmp_path).step("teacher", ["before"], write("again"))
    assert (folder / "result").read_text() == "again"


def test_processes_that_were_launched_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    Workspace(tmp_path, False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OutputError, match=r"2 processes .* without accelerate launch"):
        Workspace(tmp_path, False)
    assert not list(tmp_path.iterdir())
