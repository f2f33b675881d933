"""Streams: lines are scored as they come, by number or by time, and end quietly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from scoring_samples import read_scores, write_input

from hfcompress.errors import DataError, OutputError
from hfcompress.rankers.base import Pair
from hfcompress.scoring.sources import Source


def line_of(pair: Pair, **more: object) -> bytes:
    return json.dumps({"query": pair[0], "document": pair[1], **more}).encode() + b"\n"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@contextmanager
def scoring(score, source: Path, target: Path, **settings: object) -> Iterator[list]:
    """Score in a thread; its result, or its error, is in the list after the block."""
    result: list = []

    def work() -> None:
        try:
            result.append(score(source, target, **settings))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    yield result
    thread.join(60)
    assert not thread.is_alive()


def test_a_slow_producer_gets_its_answers(score, pairs: list[Pair], scores: np.ndarray, pipe: Path) -> None:
    answers = pipe.with_name("answers")
    os.mkfifo(answers)
    begun = scoring(score, pipe, answers, flush_seconds=0.05)
    with begun as result, answers.open("rb") as reader, pipe.open("wb", buffering=0) as writer:
        for number in range(3):
            writer.write(line_of(pairs[number], id=number))
            row = json.loads(reader.readline())  # before the end of the input
            assert row["id"] == number
            assert abs(row["score"] - scores[number]) < 1e-5
        writer.write(b"".join(line_of(pair) for pair in pairs))  # more than a chunk, at once
        found = [json.loads(reader.readline())["score"] for _ in pairs]
    np.testing.assert_allclose(found, scores, atol=1e-5)
    assert result[0].pairs == len(pairs) + 3 and not result[0].reader_gone


def test_lines_are_flushed_by_their_number(score, pairs: list[Pair], pipe: Path) -> None:
    """An hour is too long for a chunk that is full."""
    answers = pipe.with_name("answers")
    os.mkfifo(answers)
    begun = scoring(score, pipe, answers, flush_seconds=3600.0)
    with begun, answers.open("rb") as reader, pipe.open("wb", buffering=0) as writer:
        writer.write(b"".join(line_of(pair) for pair in pairs[:8]))
        assert all(reader.readline() for _ in range(8))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "trec"])
def test_every_format_of_lines(score, pairs: list[Pair], pipe: Path, kind: str, tmp_path: Path) -> None:
    source, settings = write_input(tmp_path, kind, pairs)
    target = tmp_path / "out"
    score(source, tmp_path / "whole", format=kind, **settings)
    begun = scoring(score, pipe, target, format=kind, flush_seconds=0.02, **settings)
    with begun as result, pipe.open("wb", buffering=0) as writer:
        content = source.read_bytes()
        for start in range(0, len(content), 700):  # not at the ends of lines, nor of records
            writer.write(content[start : start + 700])
            time.sleep(0.03)
    assert result[0].pairs == len(pairs)
    np.testing.assert_allclose(read_scores(kind, target), read_scores(kind, tmp_path / "whole"), atol=1e-5)


def test_a_reader_that_goes_away(score, pairs: list[Pair], pipe: Path, tmp_path: Path) -> None:
    source, _ = write_input(tmp_path, "jsonl", pairs * 400)
    with scoring(score, source, pipe) as result, pipe.open("rb") as reader:
        reader.readline()
    assert result[0].reader_gone and result[0].pairs < len(pairs) * 400


def test_errors_of_streams(score, pairs: list[Pair], pipe: Path, tmp_path: Path) -> None:
    for settings, kind, message in (
        ({"resume": True}, OutputError, "cannot be resumed"),
        ({"format": "parquet"}, DataError, "needs files"),
        ({"format": "xml"}, DataError, "no such format"),
    ):
        with pytest.raises(kind, match=message):
            score(pipe, tmp_path / "out.jsonl", **settings)
    strict = scoring(score, pipe, tmp_path / "out.jsonl", strict=True)
    with strict as result, pipe.open("wb", buffering=0) as writer:
        writer.write(line_of(pairs[0]) + b"{\n")
    assert isinstance(result[0], DataError) and "line 2" in str(result[0])
    with scoring(score, pipe, tmp_path / "out.jsonl") as result, pipe.open("wb", buffering=0) as writer:
        writer.write(b'{"a": "ba", "b": "fi"}\n')
    assert "--query-column" in str(result[0])


def test_a_fast_producer_waits(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream is read a bounded part ahead."""
    monkeypatch.setattr("hfcompress.scoring.sources.BLOCKS_AHEAD", 2)
    lines = Source(pipe).lines()
    os.set_blocking(writer := os.open(pipe, os.O_RDWR), False)
    threading.Thread(target=next, args=(lines,), daemon=True).start()
    written, block = 0, b"x" * 1023 + b"\n"
    with pytest.raises(BlockingIOError):
        for _ in range(1000):
            written += os.write(writer, block)
            time.sleep(0.0005)
    os.close(writer)
    assert written < 1 << 19


@pytest.mark.soak
def test_standard_input_and_output(model_folder: Path, pairs: list[Pair], scores: np.ndarray) -> None:
    """Answers come before the end of the input, Ctrl-C ends, and so does a closed pipe, quietly."""
    command = [sys.executable, "-m", "hfcompress", "score", str(model_folder), "--input", "-", "--output", "-"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def begin() -> subprocess.Popen:
        process = subprocess.Popen(
            [*command, "--flush-seconds", "0.05", "--threads", "1"], env=environment, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        process.stdin.write(line_of(pairs[0]))
        assert abs(json.loads(process.stdout.readline())["score"] - scores[0]) < 1e-5
        return process

    first, second = begin(), begin()
    first.send_signal(signal.SIGINT)
    assert first.wait(30) == 130 and b"Traceback" not in (message := first.stderr.read()) and b"interrupted" in message
    second.stdout.close()
    with pytest.raises(BrokenPipeError):
        for _ in range(1000):
            second.stdin.write(line_of(pairs[0]))
            time.sleep(0.05)
    assert second.wait(30) == 0 and b"rror" not in second.stderr.read()
    for process in (first, second):
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
