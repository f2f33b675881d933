"""`card` of folders without a report."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import (
    Command,
    clear_fault,
    snapshot,
)


@pytest.mark.parametrize("content", [None, "{}", "no JSON", '{"schema_version": 99}'])
def test_card_of_a_folder_without_a_report(tmp_path: Path, command: Command, content: str | None) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text("by hand", encoding="utf-8")
    if content is not None:
        (folder / "report.json").write_text(content, encoding="utf-8")
    before = snapshot(folder)
    clear_fault(command("card", folder), "report.json", str(folder))
    assert snapshot(folder) == before


def test_card_of_a_missing_folder(tmp_path: Path, command: Command) -> None:
    clear_fault(command("card", tmp_path / "nowhere"), "report.json", "nowhere")
    assert not (tmp_path / "nowhere").exists()
