"""`hfcompress score` ends with an error that says what to do, before it loads a model: these have no weights."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from command_line import Command, clear_fault

from hfcompress.cli import main


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"query": "cat", "document": "dog"}\n')
    return path


@pytest.mark.parametrize(
    ("name", "content", "options", "words"),
    [
        ("missing.jsonl", None, (), ["no such file", "--input"]),
        ("pairs.txt", b"cat\tdog\n", (), ["format", "--format"]),
        ("pairs.jsonl", b'{"a": "cat"}\n', (), ["['a']", "--query-column"]),
        ("pairs.jsonl", b'{"query": "cat", "a": "dog"}\n', (), ["--document-column"]),
        ("pairs.jsonl", b'{"query": "cat", "text": "a", "doc": "dog"}\n', (), ["--document-column"]),
        ("pairs.jsonl", b'{"query": "a", "text": "b"}\n', ("--title-column", "t"), ["no column 't'", "--title-column"]),
        ("pairs.jsonl", b'{"query": "a", "text": "b", "score": 1}\n', (), ["--score-column"]),
        ("pairs.jsonl", b'[{"query": "cat", "document": "dog"}]\n', (), ["line 1", "jq -c"]),
        ("pairs.jsonl", b"\xff\xfe{\x00", (), ["line 1", "UTF-8"]),
        ("pairs.jsonl.gz", b'{"query": "cat", "document": "dog"}\n', (), ["gzipped only if"]),
        ("pairs.csv", b"", (), ["is empty", "names of the columns"]),
        ("pairs.csv", b"query,query,text\ncat,cat,dog\n", ("--query-column", "query"), ["several columns"]),
        ("pairs.tsv", b'"query"\t"text"\ncat\tdog\n', (), ["--query-column"]),
        ("pairs.parquet", b"PAR1", (), ["complete Parquet file"]),
        ("pairs.run", b"q1 Q0 d1 1 2.5 x\n", (), ["--corpus"]),
        ("pairs.csv", b"query,text\ncat,dog\n", ("--corpus", "."), ["Only run files"]),
        ("pairs.csv", b"query,text\ncat,dog\n", ("--format", "xml"), ["no such format", "parquet"]),
        ("pairs.csv", b"query,text\ncat,dog\n", ("--runtime", "jax"), ["no such runtime"]),
        ("pairs.csv", b"query,text\ncat,dog\n", ("--device", "tpu"), ["tpu"]),
    ],
)
def test_inputs_that_cannot_be_scored(
    tmp_path: Path,
    command: Command,
    models: Path,
    name: str,
    content: bytes | None,
    options: tuple[str, ...],
    words: list[str],
) -> None:
    path, target = tmp_path / name, tmp_path / "out"
    if content is not None:
        path.write_bytes(content)
    clear_fault(command("score", models / "encoder", "--input", path, "--output", target, *options), *words)
    assert not target.exists()


def test_outputs_that_cannot_be_written(tmp_path: Path, command: Command, models: Path, pairs: Path) -> None:
    given = ("score", models / "encoder", "--input", pairs, "--output")
    clear_fault(command(*given, tmp_path), "cannot be written", "--output")
    clear_fault(command(*given, pairs / "out.jsonl"), "cannot be written")
    clear_fault(command(*given, pairs), "output is the input")
    clear_fault(command(*given, tmp_path / "out.csv"), "different formats", "csv")
    clear_fault(command(*given, "-", "--resume"), "stream cannot be resumed")
    pyarrow.parquet.write_table(pyarrow.table({"query": ["a"], "text": ["b"]}), tmp_path / "in.parquet")
    clear_fault(command(*given[:3], tmp_path / "in.parquet", "--output", "-"), "Parquet needs files")


def test_texts_of_runs(tmp_path: Path, command: Command, models: Path, data: Path) -> None:
    path = tmp_path / "first.run"
    path.write_text("q1 Q0 d1 1 2.5 bm25\n")
    given = ("score", models / "encoder", "--input", path, "--output", tmp_path / "out.run", "--corpus")
    clear_fault(command(*given, data / "corpus.jsonl"), "--queries")
    clear_fault(command(*given, tmp_path / "nowhere"), "nowhere")
    path.write_text("q1 Q0 unknown 1 2.5 bm25\n")
    clear_fault(command(*given, data), "line 1", "'unknown'", "in the corpus")
    path.write_text("q1 Q0 d1 1 2.5 bm25\n")
    clear_fault(command(*given, data), "weights")  # only now is the model loaded


def test_a_model_that_cannot_rank(command: Command, models: Path, pairs: Path, tmp_path: Path) -> None:
    for model, word in (("nowhere", "nowhere"), ("two-labels", "num_labels=2")):
        clear_fault(command("score", models / model, "--input", pairs, "--output", tmp_path / "out.jsonl"), word)
    run = tmp_path / "bm25.run"
    run.write_text("q1 Q0 d1 1 2.5 bm25\n")
    clear_fault(command("score", run, "--input", pairs, "--output", tmp_path / "out.jsonl"), "name a model")


@pytest.mark.parametrize("quiet", [False, True])
def test_the_summary_is_on_stderr(
    cross_encoder: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], quiet: bool
) -> None:
    pairs.write_text(pairs.read_text() + "{\n")
    target = tmp_path / "out.jsonl"
    capsys.readouterr()
    main(["score", str(cross_encoder), "--input", str(pairs), "--output", str(target), *["-q"] * quiet])
    printed = capsys.readouterr()
    assert not printed.out and isinstance(json.loads(target.read_text())["score"], float)
    assert "pairs.jsonl, line 2" in printed.err
    assert ("scored 1 pair in" in printed.err and "1 bad line" in printed.err) is not quiet
