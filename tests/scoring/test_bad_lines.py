"""Bad lines: each kind is reported with its number, counted and left out, or ends the call with `strict`."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from scoring_samples import read_scores, write_input

from hfcompress.errors import DataError
from hfcompress.rankers.base import BatchedRanker, Pair
from hfcompress.scoring import delimited, json_lines, sources
from hfcompress.scoring.columns import ColumnNames

GOOD = b'{"query": "ba de", "document": "fi"}'
JSON = {
    b"{": "JSON",
    b'["ba"]': "a JSON object",
    b'{"query": "ba"}': "a field 'document'",
    b'{"query": ["ba"], "document": "fi"}': "text, a number",
    b'{"query": "ba", "document": {"text": "fi"}}': "text, a number",
    b'{"query": null, "document": "fi"}': "'query'",
    b'{"query": " ", "document": "fi"}': "not empty",
    b'{"query": "caf\xe9", "document": "fi"}': "UTF-8",
    b'{"query": "ba", "document": "fi", "x": NaN}': "NaN is not JSON",
    b'{"query": "\\ud83d", "document": "fi"}': "surrogates",
    b'{"query": "ba", "document": "fi", "score": 1}': "--score-column",
    b'{"query": "ba", "document": "' + b"x" * 3000 + b'"}': "lines of texts",
}


@pytest.fixture(autouse=True)
def _short_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sources, delimited):
        monkeypatch.setattr(module, "MOST_LINE", 2000)
    monkeypatch.setattr(sources, "BLOCK", 256)


@pytest.fixture
def reported(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING, "hfcompress.scoring.score")
    return lambda: [record.getMessage() for record in caplog.records]


def test_json_lines(score, tmp_path: Path, reported, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    bad = list(JSON)
    source.write_bytes(b"\n".join([GOOD, *[part for line in bad for part in (line, GOOD)]]))
    monkeypatch.setattr(json_lines, "FIRST_LINES", 1)  # the others would be those with a score already
    summary = score(source, target)
    assert (summary.pairs, summary.bad_lines) == (len(bad) + 1, len(bad))
    assert [line.startswith(GOOD[:-1]) for line in target.read_bytes().splitlines()] == [True] * summary.pairs
    for number, (line, message) in enumerate(zip(bad, reported(), strict=True)):
        assert f"in.jsonl, line {2 * number + 2}." in message and JSON[line] in message, message


def test_deep_json_is_a_bad_line(score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_LINE", 1 << 24)
    (tmp_path / "in.jsonl").write_bytes(GOOD + b"\n" + b"[" * 100_000 + b"\n")
    assert score(tmp_path / "in.jsonl", tmp_path / "out.jsonl").bad_lines == 1


def test_numbers_are_text_as_in_data(score, ranker: BatchedRanker, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"query": 7, "document": true}\n')
    score(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    np.testing.assert_allclose(read_scores("jsonl", tmp_path / "out.jsonl"), ranker.score([("7", "True")]), atol=1e-6)


def test_csv(score, tmp_path: Path, reported) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    rows = [
        b"id,query,document",
        b"1,ba,fi",
        b"2,ba",
        b"3,ba,fi,de",
        b'4,"ba"x,fi',
        b"5,,fi",
        b"6,ba,caf\xe9",
        b"caf\xe9,ba,fi",
        b'8,ba,"fi\nde"',
        b'9,ba,"' + b"x" * 3000 + b'"',
        b"10,ba,fi",
        b'11,ba,"never closed',
    ]
    source.write_bytes(b"\n".join(rows))
    summary = score(source, target)
    assert (summary.pairs, summary.bad_lines) == (4, 7)
    assert [line.split(b",")[0] for line in target.read_bytes().splitlines()] == [
        b"id", b"1", b"caf\xe9", b"8", b'de"', b"10",
    ]  # fmt: skip
    numbers = [int(message.split("line ")[1].split(".")[0]) for message in reported()]
    assert numbers == [3, 4, 5, 6, 7, 11, 13]


def test_tsv(score, tmp_path: Path, reported) -> None:
    (tmp_path / "in.tsv").write_bytes(b'query\ttext\nba\tfi\nba\nba\tfi\tde\nba\t \n"ba\tfi\n')
    summary = score(tmp_path / "in.tsv", tmp_path / "out.tsv")
    assert (summary.pairs, summary.bad_lines) == (2, 3)
    assert [message.split("line ")[1][0] for message in reported()] == ["3", "4", "5"]


def test_parquet(score, tmp_path: Path, reported) -> None:
    broken = pyarrow.array([b"fi", b"caf\xe9", b"fi", b"fi", b"fi"]).view(pyarrow.string())
    table = pyarrow.table({"query": ["ba", "ba", None, " ", "ba"], "document": broken})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    summary = score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert (summary.pairs, summary.bad_lines) == (2, 3)
    assert [message.split("row ")[1][0] for message in reported()] == ["2", "3", "4"]
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet")["document"].to_pylist() == ["fi", "fi"]


def test_runs(score, pairs: list[Pair], tmp_path: Path, reported) -> None:
    source, settings = write_input(tmp_path, "trec", pairs)
    lines = source.read_text().splitlines()
    bad = {"q0 Q0 d1 1": "six columns", "q0 Q0 d0 1 1 x": "once", "qx Q0 d0 1 1 x": "query", "q1 Q0 dx 1 1 x": "corpus"}
    source.write_text("\n".join([*lines[:5], *bad, *lines[5:], "q0 Q0 d9 1 1 x"]))
    summary = score(source, tmp_path / "out.run", **settings)
    assert (summary.pairs, summary.bad_lines) == (len(lines), 5)
    for message, expected in zip(reported(), [*bad.values(), "together"], strict=True):
        assert expected in message


def test_scores_that_are_not_finite(score, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = BatchedRanker.score_encoded

    def broken(self: BatchedRanker, encoded) -> np.ndarray:
        logits = compute(self, encoded)
        logits[:1] = np.nan
        return logits

    monkeypatch.setattr(BatchedRanker, "score_encoded", broken)
    for kind in ("jsonl", "parquet", "trec"):
        source, settings = write_input(tmp_path / kind, kind, pairs)
        target = tmp_path / f"out.{'run' if kind == 'trec' else kind}"
        summary = score(source, target, **settings)
        assert summary.bad_lines and summary.pairs == len(pairs) - summary.bad_lines == len(read_scores(kind, target))
        with pytest.raises(DataError, match="finite score"):
            score(source, target, strict=True, **settings)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet", "trec"])
def test_strict_ends_at_the_first(score, pairs: list[Pair], tmp_path: Path, kind: str) -> None:
    source, settings = write_input(tmp_path, kind, [*pairs[:20], ("ba", " "), *pairs[20:], ("ba", "")])
    target = tmp_path / f"out.{'run' if kind == 'trec' else kind}"
    assert score(source, target, **settings).bad_lines == 2
    target.unlink()
    where = {"parquet": "row 21", "csv": r"line 42\.", "tsv": "line 22"}.get(kind, "line 21")
    with pytest.raises(DataError, match=where):
        score(source, target, strict=True, **settings)
    assert not list(tmp_path.glob("out*"))


def test_bad_lines_alone_are_an_error(score, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(GOOD + b"\n")
    with pytest.raises(DataError, match="no column 'other'"):
        score(tmp_path / "in.jsonl", tmp_path / "out.jsonl", names=ColumnNames("other", "document"))
    (tmp_path / "in.csv").write_text("query,text\n,fi\n,de\n")
    with pytest.raises(DataError, match=r"No line of .* could be scored"):
        score(tmp_path / "in.csv", tmp_path / "out.csv")
    assert not list(tmp_path.glob("out*"))
