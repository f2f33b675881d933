"""Progress bars with and without a terminal."""

from __future__ import annotations

import io
import re

import pytest

from hfcompress.utils import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(steps: int = 4) -> str:
    with progress.progress_bar(total=steps, desc="measuring", unit="doc", leave=False) as bar:
        for _ in range(steps):
            bar.set_postfix({"loss": "0.5"}, refresh=False)
            bar.update()
    assert list(progress.progress_bar(range(3), desc="counting", disable=True)) == [0, 1, 2]
    return progress.sys.stderr.getvalue()


def test_a_log_gets_whole_lines_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert work() == ""  # done before the first line is due
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    lines = work().splitlines()
    assert len(lines) == 4
    assert re.fullmatch(r"measuring: 50% \(2 of 4\), 00:00 so far, 00:00 left, loss=0\.5", lines[1])


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_bar_is_drawn_only_where_it_can_be_redrawn(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", term)
    shown = work()
    assert ("\r" in shown and "measuring" in shown) if term == "xterm" else shown == ""


def test_a_line_is_written_apart_from_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress.progress_bar(total=2, desc="measuring", leave=False), progress.between_bars():
        print("a line")
    before, after = screen.getvalue().split("a line\n")
    assert before.endswith("\r") and not before.rsplit("\r", 2)[1].strip() and "measuring" in after
