"""Input of `rank` that cannot be used, and documents read line by line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import (
    Command,
    clear_fault,
)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    path = tmp_path / "documents.txt"
    path.write_text("the cat\nthe dog\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("query", ["", "  \t"])
def test_rank_with_an_empty_query(command: Command, models: Path, documents: Path, query: str) -> None:
    clear_fault(command("rank", models / "encoder", "--query", query, "--docs", documents), "query is empty", "--query")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such file", "--docs"]),
        (b"", ["no documents"]),
        (b"the cat\n\nthe dog\n   \n", ["empty", "[2, 4]"]),
        (b"caf\xe9\n", ["UTF-8"]),
    ],
    ids=["missing", "empty", "empty lines", "not UTF-8"],
)
def test_rank_with_documents_that_cannot_be_read(
    tmp_path: Path, command: Command, models: Path, content: bytes | None, words: list[str]
) -> None:
    path = tmp_path / "documents.txt"
    if content is not None:
        path.write_bytes(content)
    clear_fault(command("rank", models / "encoder", "--query", "cat", "--docs", path), str(path), *words)


def test_rank_with_a_query_that_is_not_utf8(command: Command, models: Path, documents: Path) -> None:
    clear_fault(command("rank", models / "encoder", "--query", "c\udce9", "--docs", documents), "not UTF-8", "--query")


def test_rank_with_a_folder_for_documents(tmp_path: Path, command: Command, models: Path) -> None:
    clear_fault(command("rank", models / "encoder", "--query", "cat", "--docs", tmp_path), str(tmp_path), "text file")


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("nowhere", [], ["cannot be opened", "nowhere"]),
        ("gpt2", [], ["'gpt2'"]),
        ("two-labels", [], ["num_labels=2"]),
        ("encoder", [], ["weights", "encoder"]),
        ("encoder", ["--runtime", "onnxruntime"], ["no graph for onnxruntime"]),
        ("encoder", ["--runtime", "openvino"], ["no graph for openvino"]),
    ],
)
def test_rank_with_a_model_that_cannot_rank(
    command: Command, models: Path, documents: Path, model: str, options: list[str], words: list[str]
) -> None:
    clear_fault(command("rank", models / model, "--query", "cat", "--docs", documents, *options), *words)


def test_rank_on_a_runtime_that_does_not_exist(command: Command, models: Path, documents: Path) -> None:
    options = ("--query", "cat", "--docs", documents, "--runtime", "tensorrt")
    clear_fault(command("rank", models / "encoder", *options), "'tensorrt'", "onnxruntime", "--runtime")


def test_rank_with_a_run_file(tmp_path: Path, command: Command, documents: Path) -> None:
    path = tmp_path / "bm25.run"
    path.write_text("q1 Q0 d1 1 2.5 bm25\n", encoding="utf-8")
    clear_fault(command("rank", path, "--query", "cat", "--docs", documents), str(path), "run file", "name a model")


@pytest.mark.parametrize("top_k", [0, -1])
def test_rank_shows_at_least_one(command: Command, models: Path, documents: Path, top_k: int) -> None:
    code, message = command("rank", models / "encoder", "--query", "cat", "--docs", documents, "--top-k", top_k)
    assert code == 2 and "--top-k" in message and "greater than or equal to 1" in message


def test_rank_takes_a_line_for_a_document(
    tmp_path: Path, command: Command, cross_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked: list[str] = []

    def rank(self: object, query: str, documents: list[str], top_k: int | None) -> list[Any]:
        ranked.extend(documents)
        return []

    monkeypatch.setattr("hfcompress.rankers.base.BatchedRanker.rank", rank)
    path = tmp_path / "documents.txt"
    path.write_bytes("\ufeffthe\u2028cat\r\na\x0cdog\rthe\x85bird\n".encode())
    assert command("rank", cross_encoder, "--query", "cat", "--docs", path)[0] == 0
    assert ranked == ["the\u2028cat", "a\x0cdog", "the\x85bird"]


def test_rank_without_its_options(command: Command, models: Path) -> None:
    code, message = command("rank", models / "encoder")
    assert code == 2 and message.startswith("error: ") and "--query" in message
