"""Folders and several files: each file becomes what a call of its own writes, and an interrupted call keeps it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from scoring_samples import table_of, write_input

from hfcompress.errors import DataError, OutputError
from hfcompress.evaluation.systems import resolve_model
from hfcompress.rankers.base import BatchedRanker, Pair, RankerOptions
from hfcompress.scoring.opening import ScoreSettings
from hfcompress.scoring.score import ScoreSummary
from hfcompress.scoring.shard_folder import WORK_FOLDER
from hfcompress.scoring.shards import score_shards

CHUNK = 8
ScoreShards = Callable[..., ScoreSummary]


@pytest.fixture
def score_all(model_folder: Path) -> ScoreShards:
    candidate = resolve_model(str(model_folder), "model", device="cpu")

    def call(source: Path | list[Path], target: Path, **settings: Any) -> ScoreSummary:
        common = replace(ScoreSettings(chunk_pairs=CHUNK, progress=False), **settings)
        inputs = source if isinstance(source, list) else [source]
        return score_shards(candidate, inputs, target, common, RankerOptions(1))

    return call


@pytest.fixture
def folder(tmp_path: Path, pairs: list[Pair]) -> Path:
    """Three shards, one of them in a folder of its own and with a bad row, and files that are none."""
    source = tmp_path / "pairs"
    (source / "day=2").mkdir(parents=True)
    for name, part in (("b.parquet", pairs[:11]), ("a.parquet", pairs[11:20])):
        pyarrow.parquet.write_table(table_of(part), source / name)
    pyarrow.parquet.write_table(table_of([*pairs[20:], ("ba", "")]), source / "day=2" / "a.parquet")
    (source / "_SUCCESS").touch()
    (source / ".hidden.parquet").write_bytes(b"half of a fi")
    (source / "README.md").touch()
    return source


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_shard_is_what_a_call_of_its_own_writes(
    score_all: ScoreShards, score, folder: Path, tmp_path: Path, pairs: list[Pair], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "hfcompress"):
        summary = score_all(folder, tmp_path / "out")
    assert (summary.pairs, summary.bad_lines, summary.new_pairs) == (len(pairs), 1, len(pairs))
    assert "3 shards" in caplog.text and "day=2/a.parquet, row 11" in caplog.text
    found = files(tmp_path / "out")
    assert sorted(found) == ["a.parquet", "b.parquet", "day=2/a.parquet"]
    for name, content in found.items():
        score(folder / name, tmp_path / "alone.parquet")
        assert (tmp_path / "alone.parquet").read_bytes() == content


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_files_of_lines(score_all: ScoreShards, score, pairs: list[Pair], tmp_path: Path, kind: str) -> None:
    sources = [write_input(tmp_path / name, kind, part)[0] for name, part in (("1", pairs[:9]), ("2", pairs[9:]))]
    sources[1] = sources[1].rename(sources[1].with_name(f"others.{kind}"))
    score_all(sources, tmp_path / "out")
    assert sorted(files(tmp_path / "out")) == [f"others.{kind}", f"pairs.{kind}"]
    score(sources[1], tmp_path / f"alone.{kind}")
    assert (tmp_path / "out" / f"others.{kind}").read_bytes() == (tmp_path / f"alone.{kind}").read_bytes()


def test_an_interrupted_call_keeps_its_shards(
    score_all: ScoreShards, folder: Path, tmp_path: Path, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    score_all(folder, tmp_path / "whole")
    compute, calls, out = BatchedRanker.score_encoded, [], tmp_path / "out"

    def interrupted(self: BatchedRanker, encoded):
        calls.append(encoded)
        if len(calls) == 4:  # in the second chunk of the second shard
            raise KeyboardInterrupt
        return compute(self, encoded)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(BatchedRanker, "score_encoded", interrupted)
        score_all(folder, out)
    assert (out / "a.parquet").is_file() and not (out / "b.parquet").exists()
    (out / WORK_FOLDER / "parts" / "left-by-a-killed-process").touch()
    with pytest.raises(OutputError, match="add --resume"):
        score_all(folder, out)
    with pytest.raises(OutputError, match="chunk_pairs: 8 then, 4 now"):
        score_all(folder, out, resume=True, chunk_pairs=4)
    summary = score_all(folder, out, resume=True)
    assert (summary.pairs, summary.bad_lines, summary.new_pairs) == (len(pairs), 1, len(pairs) - 9)
    assert files(out) == files(tmp_path / "whole")
    with pytest.raises(OutputError, match=r"other files.*a\.parquet"):
        score_all(folder, out, resume=True)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_shard_that_changed_is_scored_again(
    score_all: ScoreShards, folder: Path, tmp_path: Path, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(BatchedRanker, "score_encoded", interrupt)
        score_all(folder, out, chunk_pairs=3)
    with pytest.raises(DataError, match="row 11"):  # the call before ended before its first shard
        score_all(folder, out, strict=True)
    assert not (out / "day=2").exists() and not list((out / WORK_FOLDER / "parts").iterdir())
    pyarrow.parquet.write_table(table_of(pairs[20:]), folder / "day=2" / "a.parquet")
    pyarrow.parquet.write_table(table_of(pairs[:5]), folder / "b.parquet")
    assert score_all(folder, out, strict=True, resume=True).new_pairs == 15
    assert pyarrow.parquet.read_table(out / "b.parquet").num_rows == 5


def test_what_cannot_be_scored_is_refused_before_anything_is_written(
    score_all: ScoreShards, folder: Path, tmp_path: Path, pairs: list[Pair]
) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    run, _ = write_input(tmp_path, "trec", pairs)
    other = shutil.copy(folder / "a.parquet", tmp_path / "empty" / "a.parquet")
    line = write_input(tmp_path, "csv", pairs)[0]
    for inputs, match in (
        ([tmp_path / "nowhere"], "no such file"),
        ([run], "run files one by one"),
        ([folder / "README.md"], "no input in shards"),
        ([folder / "a.parquet", line], "formats"),
        ([folder / "a.parquet", Path(other)], "same name"),
    ):
        with pytest.raises(DataError, match=match):
            score_all(inputs, out)
    with pytest.raises(OutputError, match="no stream"):
        score_all(folder, Path("-"))
    with pytest.raises(OutputError, match="in the input"):
        score_all(folder, folder / "out")
    pyarrow.parquet.write_table(pyarrow.table({"query": ["a"], "other": ["b"]}), folder / "last.parquet")
    with pytest.raises(DataError, match=r"last\.parquet do not say"):
        score_all(folder, out)
    assert not out.exists()


def test_bad_lines_alone(score_all: ScoreShards, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    pyarrow.parquet.write_table(table_of([("", "ba")] * 30), tmp_path / "in" / "a.parquet")
    with pytest.raises(DataError, match="No line of the input"):
        score_all(tmp_path / "in", tmp_path / "out")
    assert not files(tmp_path / "out") and "10 more in" in caplog.text
