"""What the command line prints, where, and how it ends after a fault."""

from __future__ import annotations

import errno
import io
import json
import logging
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from hfcompress.cli import main, terminal


@pytest.fixture(autouse=True)
def _debug_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFCOMPRESS_DEBUG", "0")  # and what --debug sets goes with the test


def ended(arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "colour", "style"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False, True),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_colours_are_left_out_where_they_are_not_wanted(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], colour: bool, style: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stderr", Terminal())
    terminal.make_console(stderr=True).print("[bold red]error:[/] text")
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert ("31m" in shown) == colour and ("\x1b[" in shown) == style


@pytest.mark.parametrize(("columns", "width"), [(None, terminal.LOG_WIDTH), ("90", 90)])
def test_a_log_is_wide_unless_columns_are_given(
    monkeypatch: pytest.MonkeyPatch, columns: str | None, width: int
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert terminal.make_console().width == width


# Steps


def test_lines_about_steps_are_printed_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("hfcompress.pipeline")
    console = terminal.start()
    for quiet in (False, True):
        logger.info("before the steps")
        with terminal.step_lines(console, quiet):
            logger.info("prune: [done] in %s", "3 s")
        logger.info("after the steps")
        printed = capsys.readouterr()
        assert printed.out == ("" if quiet else "prune: [done] in 3 s\n") and not printed.err


# --json


def test_json_on_stdout_stands_alone(cross_encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert ended(["inspect", str(cross_encoder), "--json", "-"]) == 0
    printed = capsys.readouterr()
    shown = json.loads(printed.out)
    assert (shown["model_type"], shown["report"], len(shown["plan"]["layers"])) == ("bert", None, 4)
    assert shown["pruning"]["layers_of"] == 4
    assert "kept heads" in printed.err


@pytest.mark.parametrize("verb", ["run", "prune", "evaluate", "inspect"])
def test_json_that_cannot_be_written_is_found_first(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"run": ["--out", "out"], "prune": ["--out", "out", "--data", "words"], "evaluate": ["--data", "words"]}
    assert ended([verb, "missing", *more.get(verb, []), "--json", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "cannot be written as JSON" in message and "Remedy: correct --json" in message


# Faults


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/out/.part"),
            ["No permission", "/out/.part", "permissions"],
        ),
        (OSError(errno.EROFS, "Read-only file system", "/out"), ["No permission", "'/out'"]),
        (OSError(errno.ENOSPC, "No space left on device"), ["The disk is full", "--out"]),
        (SafetensorError("I/O error: No space left on device (os error 28)"), ["The disk is full", "--out"]),
    ],
)
def test_a_full_or_closed_disk_is_no_fault_of_hfcompress(
    fault: Exception, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr("hfcompress.cli.app", fail)
    assert ended(["doctor"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Remedy: " in message and "Traceback" not in message
    assert all(word in message for word in words)


def test_other_faults_of_the_system_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("hfcompress.cli.app", fail)
    with pytest.raises(OSError, match="Too many open files"):
        main(["doctor"])


@pytest.mark.parametrize("options", [[], ["--debug"]])
def test_a_traceback_is_shown_where_it_is_asked_for(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(["card", str(tmp_path), *options]) == 2
    message = capsys.readouterr().err
    assert message.splitlines()[-1].startswith("error: There is no report.json")
    assert ("Traceback" in message) == bool(options)
