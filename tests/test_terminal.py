"""What the command line prints, where, and how it ends."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from safetensors import SafetensorError

from hfcompress.cli import main, terminal
from hfcompress.cli.interruption import advice, program_name
from hfcompress.cli.tables import print_report, verdict
from hfcompress.evaluation.report import RunReport, Verdict

CARDS = Path(__file__).parents[1] / "model_cards"
HEAVY = ("torch", "transformers", "datasets", "numpy", "scipy", "tqdm", "matplotlib", "yaml")


@pytest.fixture
def report() -> RunReport:
    return RunReport.load(CARDS / "quickstart")


@pytest.fixture(autouse=True)
def _debug_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFCOMPRESS_DEBUG", "0")  # and what --debug sets goes with the test


def ended(arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys; from hfcompress.cli import main; main({arguments}); print(*{{*{HEAVY}}} & sys.modules.keys())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "Usage" in printed and printed.endswith("\n\n")


@pytest.mark.parametrize("name", ["quickstart", "selqa-googleq"])
@pytest.mark.parametrize("width", [80, 132])
def test_tables_fit(name: str, width: int) -> None:
    report, screen = RunReport.load(CARDS / name), io.StringIO()
    print_report(report, Console(file=screen, width=width))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    shown = " ".join(screen.getvalue().split())
    for artifact in report.artifacts:
        assert artifact.delta is not None
        assert f"[{artifact.delta.ci_low:+.4f}, {artifact.delta.ci_high:+.4f}]" in shown
        assert f"{artifact.speedup:.2f}x" in shown and artifact.name.split("-int8")[0] in shown
    assert ("MRR@10" in shown) == (width > 80)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("non-inferior", "student-openvino-int8-static ranks as well as its teacher: a loss of 0.01 nDCG@10 or more"),
        ("inferior", "inferior: it loses more than 0.01 (95% interval ["),
        ("inconclusive", "inconclusive: these queries cannot tell whether it loses more than 0.01"),
    ],
)
def test_the_verdict_in_words(report: RunReport, given: Verdict, words: str) -> None:
    artifacts = [
        each.model_copy(
            update={"delta": each.delta and each.delta.model_copy(update={"verdict": given, "corrected": given})}
        )
        for each in report.artifacts
    ]
    text = verdict(report.model_copy(update={"artifacts": artifacts}))
    assert words in text and "times as fast" in text and f"instead of {report.teacher.size_bytes / 1e6:.1f} MB" in text
    assert text.startswith("No artefact is shown to rank as well") == (given != "non-inferior")


def test_a_teacher_that_is_no_better_than_the_first_stage(report: RunReport) -> None:
    def shown() -> str:
        screen = io.StringIO()
        print_report(report, Console(file=screen, width=120))
        return " ".join(screen.getvalue().split())

    assert "no better than" not in shown()
    report.first_stage.quality["ndcg@10"] = 0.6
    assert "ranks these queries no better than BM25 alone (nDCG@10 0.5328 against 0.6000)" in shown()


def test_a_report_without_artefacts_has_no_verdict(report: RunReport) -> None:
    assert verdict(report.model_copy(update={"artifacts": []})).startswith("No verdict")


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
    terminal._console(stderr=True).print("[bold red]error:[/] text")
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
    assert terminal._console().width == width


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


# Faults and interruptions


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/out/.part"), ["closed", "/out/.part", "permissions"]),
        (OSError(errno.EROFS, "Read-only file system", "/out"), ["closed", "'/out'"]),
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_run_with_the_command_that_resumes_it(
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)
        pytest.fail(f"{number.name} did not interrupt the run")

    monkeypatch.setattr("hfcompress.pipeline.run", interrupted)
    recipe = tmp_path / "my recipe.yaml"
    recipe.write_text("name: pico\ndata: {sets: [words]}\nteacher: {model: encoder}\n")
    arguments = ["run", str(recipe), "--out", str(tmp_path / "out"), "--set", "data.candidates=5", "--set", "seed=1"]
    before = signal.getsignal(signal.SIGTERM)
    capsys.readouterr()
    # A shell starts what runs in its background with Ctrl-C ignored, and these tests may be there.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as end:
            main(arguments, "optimum-cli compress")
    finally:
        signal.signal(signal.SIGINT, usual)
    assert end.value.code == code and signal.getsignal(signal.SIGTERM) == before
    told = capsys.readouterr().err.splitlines()
    assert told[-2] == "interrupted: finished steps are kept; go on with"
    assert shlex.split(told[-1]) == ["optimum-cli", "compress", *arguments, "--resume"]


def test_what_is_told_after_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    assert advice("hfcompress", ["run", "a.yaml", "--resume", "-q"]).endswith("\n  hfcompress run a.yaml --resume -q")
    assert advice("hfcompress", ["rank", "run", "--query", "run"]) == "the same command starts anew"
    for again in (["publish", "out", "--repo-id", "a/b"], ["--debug", "data", "mine", "set"]):
        assert advice("hfcompress", again) == "the same command goes on where it stopped"
    assert advice("hfcompress", ["data", "check", "mine"]) == "the same command starts anew"
    for typed, name in (("/a/hfcompress/__main__.py", "python -m hfcompress"), ("./my env/x", "'./my env/x'")):
        monkeypatch.setattr("sys.argv", [typed])
        assert program_name() == name
