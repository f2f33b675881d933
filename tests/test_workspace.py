"""Which steps of a run are kept, and what is left of the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hfcompress import workspace as module
from hfcompress.workspace import Workspace


def opened(out: Path) -> Workspace:
    workspace = Workspace(out, resume=True, say=lambda _: None)
    workspace.begin()
    return workspace


def write(text: str = "") -> Callable[[Path, Path], None]:
    def work(folder: Path, partial: Path) -> None:
        partial.mkdir(exist_ok=True)
        (folder / "result").write_text(text)

    return work


@pytest.mark.parametrize("package", ["hfcompress", "transformers"])
def test_another_version_does_the_steps_again(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reused = []
    for version in ("1", "1", "2"):
        monkeypatch.setattr(module, "versions", lambda version=version: {package: version})
        workspace = opened(tmp_path)
        workspace.step("teacher", [], write())
        reused.append(workspace.steps[0].reused)
    assert reused == [False, True, False]
