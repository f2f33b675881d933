"""`inspect` of damaged and foreign folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import Command, clear_fault


@pytest.mark.parametrize("content", ["", "no JSON", "{}", '{"importance": "obs", "layers_of": "many"}'])
def test_inspect_of_a_damaged_record_of_pruning(tmp_path: Path, command: Command, models: Path, content: str) -> None:
    folder = shutil.copytree(models / "pruned", tmp_path / "pruned")
    (folder / "pruning.json").write_text(content, encoding="utf-8")
    clear_fault(command("inspect", folder), str(folder / "pruning.json"))


@pytest.mark.parametrize("model", ["gpt2", "nowhere"])
def test_inspect_of_what_is_no_encoder(command: Command, models: Path, model: str) -> None:
    clear_fault(command("inspect", models / model), model)
