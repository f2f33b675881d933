"""Tests of the schema of reports, also with reports of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hfcompress.pruning.prune import PrunedModel
from hfcompress.report.report import REPORT_FILE, RunReport
from hfcompress.report.structure import PruningSummary

ROOT = Path(__file__).parents[2]
OLD_NAME = "encoder_flops_kept"
OLD_REPORTS = [
    *(path.parent for path in sorted(ROOT.glob("model_cards/*/report.json")) if OLD_NAME in path.read_text("utf-8")),
    ROOT / "tests/legacy/run",
]


@pytest.mark.parametrize("folder", OLD_REPORTS, ids=lambda folder: folder.name)
def test_reports_with_the_old_name_of_macs_load_and_are_saved_with_the_new_one(folder: Path, tmp_path: Path) -> None:
    text = (folder / REPORT_FILE).read_text(encoding="utf-8")
    old = json.loads(text)["pruning"][OLD_NAME]
    report = RunReport.load(folder)
    assert report.pruning is not None and report.pruning.encoder_macs_kept == old
    saved = report.save(tmp_path).read_text(encoding="utf-8")
    assert OLD_NAME not in saved and json.loads(saved)["pruning"]["encoder_macs_kept"] == old
    assert RunReport.load(tmp_path) == report


def test_summaries_and_family_members_with_the_old_name_load() -> None:
    text = (ROOT / "tests/legacy/run/.hfcompress/prune/pruning.json").read_text(encoding="utf-8")
    assert PruningSummary.model_validate_json(text).encoder_macs_kept == json.loads(text)[OLD_NAME]
    values = {"folder": ".", "target": "speedup 2", "calibration_loss": 0.1, "parameters": 1}
    old = {**values, OLD_NAME: 0.5, "predicted_speedup": None, "measured_speedup": None}
    member = PrunedModel.model_validate(old)
    assert member.encoder_macs_kept == 0.5 and OLD_NAME not in member.model_dump()
