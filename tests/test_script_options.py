"""Every script that takes options says so: what it imports is there."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
WITH_OPTIONS = sorted(path.name for path in SCRIPTS.glob("*.py") if "ArgumentParser(" in path.read_text("utf-8"))


@pytest.mark.parametrize("script", WITH_OPTIONS)
def test_help(script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    monkeypatch.syspath_prepend(str(SCRIPTS))  # where a script finds those that it imports
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    assert ended.value.code == 0 and script in capsys.readouterr().out
