"""Options for long documents on the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from command_line import Command, clear_fault
from conftest import write_beir

from hfcompress.cli import main
from hfcompress.data.ranking import RankingData
from hfcompress.rankers.load import load_ranker

QUERY = "ba de fi"
LONG = " ".join(["go lu ka"] * 20)
CHUNK = ("--long-documents", "chunk", "--max-chunks", "3", "--overlap", "0", "--title-tokens", "4", "--combine", "mean")
SETTING = {"mode": "chunk", "max_chunks": 3, "overlap": 0, "title_tokens": 4, "combine": "mean"}


def test_rank_and_score_read_chunks(tmp_path: Path, cross_encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = load_ranker(cross_encoder, "torch", long_documents=SETTING)
    logit, truncated = (
        float(each.score([(QUERY, LONG)])[0]) for each in (expected, load_ranker(cross_encoder, "torch"))
    )
    assert logit != truncated
    (tmp_path / "docs.txt").write_text(f"{LONG}\n")
    main(["rank", str(cross_encoder), "--query", QUERY, "--docs", str(tmp_path / "docs.txt"), *CHUNK])
    assert float(capsys.readouterr().out.split()[0]) == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-4)
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"query": QUERY, "document": LONG}) + "\n")
    target = tmp_path / "scored.jsonl"
    arguments = ["--input", str(tmp_path / "pairs.jsonl"), "--output", str(target), "--quiet"]
    main(["score", str(cross_encoder), *arguments, *CHUNK])
    assert json.loads(target.read_text())["score"] == pytest.approx(logit, abs=1e-5)


def test_evaluate_reads_chunks(tmp_path: Path, cross_encoder: Path, word_data: RankingData) -> None:
    folder = write_beir(tmp_path / "words", word_data)
    figures = {}
    for options in ((), CHUNK):
        path = tmp_path / f"{len(options)}.json"
        arguments = ["--data", str(folder), "--max-length", "10", "--json", str(path), "--quiet"]
        main(["evaluate", str(cross_encoder), *arguments, *options])
        figures[len(options)] = json.loads(path.read_text())
    assert figures[0]["long_documents"] is None
    assert figures[len(CHUNK)]["long_documents"] == {**SETTING, "max_tokens_per_doc": None}
    first, second = (each["artifacts"][0]["per_query"] for each in figures.values())
    assert first.keys() == second.keys() and first != second


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--long-documents", "window"], ["--long-documents", "'window'", "truncate or chunk"]),
        (["--max-chunks", "3"], ["--max-chunks", "--long-documents chunk"]),
        (["--overlap", "3"], ["--overlap", "no effect"]),
        (["--title-tokens", "3"], ["--title-tokens", "no effect"]),
        (["--long-documents", "chunk", "--combine", "sum"], ["--combine", "'sum'"]),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path, cross_encoder: Path, command: Command, options: list[str], words: list[str]
) -> None:
    (tmp_path / "docs.txt").write_text("ba\n")
    clear_fault(command("rank", cross_encoder, "--query", "ba", "--docs", tmp_path / "docs.txt", *options), *words)
