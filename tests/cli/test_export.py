"""`hfcompress export` ends with an error that says what to do, before it loads weights."""

from __future__ import annotations

from pathlib import Path

from command_line import Command


def test_errors(models: Path, command: Command, tmp_path: Path) -> None:
    folder, out = models / "encoder", tmp_path / "out"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").touch()
    for arguments, remedy in (
        ((folder, "--to", "solr", "--out", out), "correct --to"),
        ((folder, "--to", "tei", "--out", out, "--file", "onnx/none.onnx"), "correct --file"),
        ((folder, "--to", "tei", "--out", foreign), "name another folder with --out"),
        ((folder, "--to", "elasticsearch", "--out", out, "--file", "onnx/model.onnx"), "leave --file out"),
        (("no/such/folder", "--to", "tei", "--out", out), "Remedy"),
        ((folder, "--to", "tei"), "--out"),
    ):
        code, text = command("export", *arguments)
        assert code == 2 and remedy in text, arguments
    assert not out.exists()
