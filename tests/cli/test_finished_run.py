"""Verbs on the folder of a finished run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_samples import FinishedRun

from hfcompress.cli import main
from hfcompress.models.layout import ONNX_INT8


@pytest.mark.parametrize("verb", ["inspect", "card", "rank", "rank a graph", "evaluate"])
def test_verbs_on_a_finished_run(
    verb: str,
    finished_run: FinishedRun,
    run_inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, *_ = finished_run
    documents = tmp_path / "documents.txt"
    documents.write_text("ba de\nsun ba de fi\n")
    result = tmp_path / "result.json"
    options = {
        "inspect": [],
        "card": [],
        "rank": ["--query", "ba de fi", "--docs", str(documents)],
        "rank a graph": ["--query", "ba de fi", "--docs", str(documents)],
        "evaluate": [
            "--data",
            str(run_inputs / "words"),
            "--baseline",
            str(run_inputs / "encoder"),
            "--json",
            str(result),
        ],
    }[verb]
    before, model = (out / "README.md").read_bytes(), out / ONNX_INT8 if verb == "rank a graph" else out
    monkeypatch.setattr("sys.argv", ["hfcompress", verb.split()[0], str(model), *options])
    main()
    printed = capsys.readouterr().out
    if verb == "inspect":
        assert "kept heads" in printed and "student-torch" in printed
    elif verb == "card":
        assert (out / "README.md").read_bytes() == before
    elif verb.startswith("rank"):
        assert [line.split("\t")[1] for line in printed.splitlines()] in (["1", "2"], ["2", "1"])
    else:
        assert "BM25" in printed
        evaluation = json.loads(result.read_text())
        assert [artifact["name"] for artifact in evaluation["artifacts"]] == ["baseline", "model"]
        assert evaluation["artifacts"][1]["delta"]["verdict"] in ("inferior", "non-inferior", "inconclusive")
