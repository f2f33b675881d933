"""Options, models and data that `evaluate` refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import (
    Command,
    clear_fault,
    write_table,
)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--split", "validation"], ["no such split", "'validation'", "--split"]),
        (["--runtime", "tensorrt"], ["no such runtime", "'tensorrt'", "--runtime"]),
        (["--max-length", "65"], ["65", "at most 64 tokens"]),
        (["--runtime", "onnxruntime"], ["no graph for onnxruntime"]),
    ],
)
def test_evaluate_with_options_that_do_not_fit(
    tmp_path: Path, command: Command, models: Path, data: Path, options: list[str], words: list[str]
) -> None:
    path = tmp_path / "figures.json"
    clear_fault(command("evaluate", models / "encoder", "--data", data, "--json", path, "--quiet", *options), *words)
    assert not path.exists()


def test_evaluate_against_a_missing_baseline(tmp_path: Path, cross_encoder: Path, command: Command, data: Path) -> None:
    missing = tmp_path / "nowhere"
    result = command("evaluate", cross_encoder, "--data", data, "--baseline", missing, "--quiet")
    clear_fault(result, "cannot be opened", str(missing))


def test_evaluate_on_a_split_without_a_judged_query(cross_encoder: Path, command: Command, data: Path) -> None:
    write_table(data / "qrels" / "test.tsv", [("q6", "d6", "0"), ("q7", "d7", "0")])
    clear_fault(command("evaluate", cross_encoder, "--data", data, "--quiet"), "'test' split", "relevant document")


def test_evaluate_on_a_split_that_is_not_there(cross_encoder: Path, command: Command, data: Path) -> None:
    (data / "qrels" / "dev.tsv").unlink()
    result = command("evaluate", cross_encoder, "--data", data, "--split", "dev", "--quiet")
    clear_fault(result, "no 'dev' split", "qrels/dev.tsv")


@pytest.mark.parametrize(
    "options",
    [["--candidates", "0"], ["--margin", "0"], ["--max-queries", "-1"], ["--max-queries", "0"], ["--max-length", "0"]],
    ids=" ".join,
)
def test_evaluate_with_numbers_out_of_range(command: Command, models: Path, data: Path, options: list[str]) -> None:
    code, message = command("evaluate", models / "encoder", "--data", data, "--quiet", *options)
    assert code == 2 and message.startswith("error: ") and options[0].strip("-").split("-")[0] in message


@pytest.mark.parametrize("model", ["gpt2", "two-labels", "nowhere"])
def test_evaluate_with_a_model_that_cannot_rank(command: Command, models: Path, data: Path, model: str) -> None:
    word = "num_labels=2" if model == "two-labels" else model
    clear_fault(command("evaluate", models / model, "--data", data, "--quiet"), word)


def test_evaluate_with_a_missing_data_folder(command: Command, models: Path, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    clear_fault(command("evaluate", models / "encoder", "--data", missing, "--quiet"), str(missing), "data folder")
