"""`hfcompress data` on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_beir

from hfcompress.cli import main
from hfcompress.data.beir import load_beir
from hfcompress.data.ranking import RankingData

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `hfcompress data`; returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hfcompress", "data", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path: Path, word_data: RankingData) -> Path:
    return write_beir(tmp_path / "words", word_data)


def test_check_says_what_there_is(tmp_path: Path, folder: Path, cross_encoder: Path, command: Command) -> None:
    figures = tmp_path / "facts.json"
    arguments = ("--model", cross_encoder, "--deviation", "0.3", "--margin", "0.05", "--json", figures, "--quiet")
    code, printed, _ = command("check", folder, *arguments)
    assert code == 0
    for words in (
        "words: 120 documents",
        "with a relevant document",
        "judged@10",
        "truncated",
        "assumption",
        "split has 12",
    ):
        assert words in printed
    found = json.loads(figures.read_text(encoding="utf-8"))
    assert found["splits"]["train"]["queries"] == 40 and found["truncation"]["max_length"] == 32
    assert found["verdict"]["queries_by_assumed_deviation"]["0.3"] == 283  # (1.959964 + 0.841621)^2 0.3^2 / 0.05^2
    assert found["warnings"] and all(warning in printed.replace("\n", " ") for warning in found["warnings"])


def test_check_says_what_truncation_removes_and_chunks_cost(
    tmp_path: Path, folder: Path, cross_encoder: Path, command: Command
) -> None:
    figures = tmp_path / "facts.json"
    arguments = ("--model", cross_encoder, "--max-length", "10", "--json", figures, "--quiet")
    code, printed, _ = command("check", folder, *arguments)
    assert code == 0 and "--long-documents chunk" in printed and "tokens per" in printed
    found = json.loads(figures.read_text(encoding="utf-8"))
    cost, (rate,) = found["reading_cost"], found["token_rates"]
    assert cost["truncated_pairs"] == found["truncation"]["share"] == 1 and 0.3 < cost["truncated_tokens"] < 0.4
    assert cost["inputs_per_pair"] > 2 and cost["read_mean"] > cost["truncated_mean"] == 10
    assert rate["script"] == "Latin" and rate["unit"] == "word"
    assert rate["tokens_per_unit"] == 1 and rate["unknown_share"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "nowhere"], ["no such data folder"]),
        (["check", "recommend", "--margin", "0"], ["--margin"]),
        (["check", "recommend", "--deviation", "2"], ["--deviation"]),
        (["check", "recommend", "--power", "1"], ["--power"]),
        (["check", "recommend", "--max-length", "64"], ["--model"]),
        (["check", "recommend", "--model", "nowhere"], ["cannot be opened"]),
        (["check", "hub:"], ["hub:ORG/NAME"]),
        (["build", "wikipedia", "out"], ["api-search or recommend"]),
        (["mine", "recommend", "--model", "nowhere", "--out", "out"], ["pool set"]),
        (["mine", "nowhere", "--model", "x", "--out", "out"], ["no such data folder"]),
        (["mine", "nowhere", "--model", "x", "--out", "out", "--runtime", "tensorrt"], ["no such runtime"]),
        (["check"], ["missing argument"]),
        (["lose"], ["lose"]),
    ],
    ids=lambda value: " ".join(value[:5]) if isinstance(value, list) else None,
)
def test_faults(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, message = command(*arguments, *([] if len(arguments) == 1 else ["--quiet"]))
    assert code == 2 and message.startswith("error: ")
    assert all(word in message.lower() or word in message for word in words)
    assert not list(tmp_path.iterdir())


def test_mine_with_a_cross_encoder(tmp_path: Path, folder: Path, cross_encoder: Path, command: Command) -> None:
    out = tmp_path / "mined"
    arguments = (
        "mine",
        folder,
        "--model",
        cross_encoder,
        "--out",
        out,
        "--depth",
        "6",
        "--max-queries",
        "5",
        "--quiet",
    )
    code, printed, message = command(*arguments)
    assert code == 0, message
    assert "hard negatives for 5 queries" in printed and f"data.sets: ['{out}']" in printed
    assert len(load_beir(out).splits["train"].qrels) == 5
    assert command(*arguments, "--margin", "0.5")[0] == 0


def test_build_writes_a_folder_that_can_be_read(tmp_path: Path, command: Command) -> None:
    out = tmp_path / "recommend"
    code, printed, _ = command("build", "recommend", out, "--max-queries", "4", "--quiet")
    assert code == 0 and "768 documents, 4 train, 4 dev, 4 test queries" in printed
    assert load_beir(out).pool
    code, _, message = command("build", "recommend", out)
    assert code == 2 and "in use" in message


def test_data_alone_shows_its_help(command: Command) -> None:
    code, printed, message = command()
    assert code == 2 and all(verb in printed + message for verb in ("check", "mine", "build"))
