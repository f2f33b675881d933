"""The check of a real device runs on the CPU too, and says when something fails."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from conftest import write_beir

from hfcompress.data.ranking import RankingData

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_check.py"


def check(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int | str | None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return ended.value.code


def test_the_check_passes_on_the_cpu(
    cross_encoder: Path,
    word_data: RankingData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write_beir(tmp_path / "words", word_data)
    settings = ["--device", "cpu", "--dtype", "float16", "--max-length", 32, "--steps", 20]
    settings += ["--calibration-queries", 8, "--learning-rate", 1e-3]
    for name, value in (("ROUNDS", 1), ("SAMPLE_TOKENS", 512), ("FULL_BATCHES", 0)):
        monkeypatch.setattr(f"hfcompress.pruning.costs.latency.{name}", value)
    code = check(monkeypatch, "--model", cross_encoder, "--data", data, "--out", tmp_path / "out", *settings)
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "gpu_check.json").read_text())
    by_name = {row["check"]: row for row in result["checks"]}
    assert result["device"] == "cpu" and len(by_name) == 7
    assert by_name["scores as on the CPU"]["fp32"] == 0 and by_name["importance as on the CPU"]["correlation"] > 0.999
    failed = [row for row in result["checks"] if not row["passed"]]
    # 16 bits on a pico model with large random weights may drift more than a real one
    assert all(row["check"].endswith("on the CPU") and not row["error"] for row in failed), printed
    assert code == (1 if failed else 0) and ("CHECKS FAILED" in printed) == bool(failed)


def test_a_failure_is_the_exit_code(
    cross_encoder: Path, word_data: RankingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    for name in ("obs", "margins"):
        monkeypatch.setattr(f"hfcompress.pruning.importance.{name}.evaluation_mode", broken)
    monkeypatch.setattr("hfcompress.pruning.costs.latency.time_models", broken)
    data = write_beir(tmp_path / "words", word_data)
    settings = ["--device", "cpu", "--max-length", 32, "--steps", 1]
    assert check(monkeypatch, "--model", cross_encoder, "--data", data, "--out", tmp_path / "out", *settings) == 1
    result = json.loads((tmp_path / "out" / "gpu_check.json").read_text())
    assert not result["passed"] and "out of memory" in result["checks"][1]["error"]
