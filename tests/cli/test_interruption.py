"""How a command ends after a signal, and the command that resumes it."""

from __future__ import annotations

import os
import shlex
import signal
import time
from pathlib import Path

import pytest

from hfcompress.cli import main
from hfcompress.cli.interruption import advice, program_name


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
    printed = capsys.readouterr().err.splitlines()
    assert printed[-2] == "interrupted: finished steps are kept; continue with"
    assert shlex.split(printed[-1]) == ["optimum-cli", "compress", *arguments, "--resume"]


def test_the_advice_after_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    assert advice("hfcompress", ["run", "a.yaml", "--resume", "-q"]).endswith("\n  hfcompress run a.yaml --resume -q")
    assert advice("hfcompress", ["rank", "run", "--query", "run"]) == "the same command starts over"
    for again in (["publish", "out", "--repo-id", "a/b"], ["--debug", "data", "mine", "set"]):
        assert advice("hfcompress", again) == "the same command continues where it stopped"
    assert advice("hfcompress", ["data", "check", "mine"]) == "the same command starts over"
    files = ["score", "out", "--input", "a.csv", "--output", "b.csv"]
    assert advice("hfcompress", files).endswith("\n  hfcompress score out --input a.csv --output b.csv --resume")
    for stream in (["score", "out", "--input", "-", "--output", "b.csv"], ["score", "out", "--input=a", "--output=-"]):
        assert advice("hfcompress", stream) == "the scores of a stream end here"
    for typed, name in (("/a/hfcompress/__main__.py", "python -m hfcompress"), ("./my env/x", "'./my env/x'")):
        monkeypatch.setattr("sys.argv", [typed])
        assert program_name() == name
