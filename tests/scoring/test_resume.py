"""An interrupted call goes on behind its last complete chunk, and its output is the same byte for byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from scoring_samples import write_input

from hfcompress.errors import OutputError
from hfcompress.rankers.base import BatchedRanker, Pair
from hfcompress.scoring.columns import ColumnNames
from hfcompress.scoring.targets import FileTarget

KINDS = {"jsonl": "jsonl", "csv": "csv.gz", "tsv": "tsv", "parquet": "parquet", "trec": "run"}


def interrupt(monkeypatch: pytest.MonkeyPatch, chunks: int) -> None:
    """Let the call end with Ctrl-C after some chunks."""
    compute, done = BatchedRanker.score_encoded, []

    def interrupted(self: BatchedRanker, encoded):
        done.append(encoded)
        if len(done) > chunks:
            raise KeyboardInterrupt
        return compute(self, encoded)

    monkeypatch.setattr(BatchedRanker, "score_encoded", interrupted)


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_output_is_the_same(
    score, pairs: list[Pair], tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, settings = write_input(tmp_path, kind, [pairs[0], ("ba", ""), *pairs[1:]])
    whole, target = tmp_path / f"whole.{KINDS[kind]}", tmp_path / f"out.{KINDS[kind]}"
    expected = score(source, whole, **settings)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupt(patched, 2)
        score(source, target, **settings)
    part = tmp_path / f"{target.name}.part"
    with part.open("ab") as stream:
        stream.write(b"half of a chu")  # whose writing was interrupted
    assert not target.exists()
    with pytest.raises(OutputError, match="add --resume"):
        score(source, target, **settings)
    summary = score(source, target, resume=True, **settings)
    assert target.read_bytes() == whole.read_bytes()
    assert (summary.pairs, summary.bad_lines) == (expected.pairs, expected.bad_lines) == (len(pairs), 1)
    assert 0 < summary.new_pairs < summary.pairs and "before" in str(summary)
    assert not list(tmp_path.glob("*.part*"))


def test_other_settings_are_refused(score, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = write_input(tmp_path, "jsonl", pairs)
    target = tmp_path / "out.jsonl"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupt(patched, 2)
        score(source, target)
    for changed, word in (
        ({"chunk_pairs": 4}, "chunk_pairs: 8 then, 4 now"),
        ({"activation": True}, "activation"),
        ({"names": ColumnNames(score="logit")}, "columns"),
    ):
        with pytest.raises(OutputError, match=word):
            score(source, target, resume=True, **changed)
    before = source.read_text()
    source.write_text(before.replace("1", "2"))
    with pytest.raises(OutputError, match="input: "):
        score(source, target, resume=True)
    source.write_text(before)
    state = tmp_path / "out.jsonl.part.json"
    record = json.loads(state.read_text())
    record["done"]["size"] += 1
    state.write_text(json.dumps(record))
    with pytest.raises(OutputError, match="missing"):
        score(source, target, resume=True)
    state.write_text("{}")
    with pytest.raises(OutputError, match="delete"):
        score(source, target, resume=True)
    state.unlink()  # as when a call is interrupted in its first chunk
    assert score(source, target, resume=True).new_pairs == len(pairs)


def test_a_fault_of_the_machine_keeps_what_is_done(
    score, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = write_input(tmp_path, "jsonl", pairs)
    append = FileTarget.append

    def full(self: FileTarget, data: bytes, pairs: int, bad_lines: int) -> None:
        if self.done.chunks == 2:
            raise OSError(28, "No space left on device")
        append(self, data, pairs, bad_lines)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(FileTarget, "append", full)
        score(source, tmp_path / "out.jsonl")
    assert score(source, tmp_path / "out.jsonl", resume=True).new_pairs == len(pairs) - 16


def test_nothing_to_resume(score, pairs: list[Pair], tmp_path: Path) -> None:
    source, _ = write_input(tmp_path, "jsonl", pairs)
    assert score(source, tmp_path / "out.jsonl", resume=True).new_pairs == len(pairs)


@pytest.mark.soak
def test_killed_in_mid_run(model_folder: Path, pairs: list[Pair], tmp_path: Path) -> None:
    source, _ = write_input(tmp_path, "jsonl", pairs * 200)
    target = tmp_path / "out.jsonl"
    state = tmp_path / "out.jsonl.part.json"

    def command(target: Path, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "hfcompress", "score", str(model_folder), "--input", str(source),
            "--output", str(target), "--chunk-pairs", "50", "--threads", "1", *more,
        ]  # fmt: skip

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command(target), env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (state.exists() and json.loads(state.read_text())["done"]["chunks"] >= 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists() and state.exists()
    resumed = subprocess.run(command(target, "--resume"), env=environment, capture_output=True, text=True, check=True)
    assert "resumed behind" in resumed.stderr and not resumed.stdout
    subprocess.run(command(tmp_path / "whole.jsonl", "-q"), env=environment, check=True)
    assert target.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
