"""Options, models, data and output folders that `prune` refuses before any long work, and sound ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from command_line import (
    Command,
    LongWork,
    clear_fault,
    earlier_run,
    remove,
    rewrite,
    snapshot,
    thesis,
)

from hfcompress.utils.device import Memory


@pytest.fixture
def prune(
    tmp_path: Path, command: Command, cross_encoder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Runs `prune` of a sound model, up to the long work."""

    def long_work(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise LongWork

    monkeypatch.setattr("hfcompress.pruning.prune.find_plans", long_work)

    def run(*options: object, model: Path = cross_encoder) -> tuple[int, str]:
        return command("prune", model, "--data", data, "--out", tmp_path / "out", "--quiet", *options)

    return run


@pytest.mark.parametrize(
    "options",
    [
        ["--target-macs", "0.5"],
        ["--target-speedup", "2", "--target-speedup", "3", "--structure", "stock", "--runtime", "torch"],
        ["--heads", "0.5", "--ffn", "0.5", "--importance", "fisher"],
        ["--ffn", "0.5", "--structure", "stock"],
        ["--vocabulary", "corpus"],
        ["--target-parameters", "0.5", "--vocabulary", "corpus", "--min-count", "3", "--max-length", "514"],
        ["--weight-sparsity", "0.7"],
        ["--target-macs", "0.5", "--weight-pattern", "2:4"],
    ],
    ids=" ".join,
)
def test_prune_with_sound_options(prune: Callable[..., tuple[int, str]], options: list[str]) -> None:
    with pytest.raises(LongWork):
        prune(*options)


def test_prune_of_what_does_not_fit_into_memory(
    prune: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfcompress.utils.memory.memory_of", lambda device: Memory(1000, 1000))
    code, printed = prune("--target-macs", "0.5")
    assert code == 2 and "Pruning needs more memory than this" in printed and "calibration_queries" in printed
    with pytest.raises(LongWork):
        prune("--vocabulary", "corpus")


def test_prune_in_processes_that_were_launched_together(
    prune: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, printed = prune("--target-macs", "0.5")
    assert code == 2 and "2 processes" in printed and "without accelerate launch" in printed


def test_prune_takes_the_deprecated_name_of_an_option_with_a_warning(
    tmp_path: Path,
    command: Command,
    cross_encoder: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[Any] = []

    def record(_model: str, _data: list[str], _out: Path, settings: Any, targets: Any, *_: Any, **__: Any) -> NoReturn:
        asked.extend((settings.target_macs, targets))
        raise LongWork

    monkeypatch.setattr("hfcompress.pruning.prune.prune_checkpoint", record)
    options = ("--target-macs", "0.25", "--target-flops", "0.5")
    with pytest.raises(LongWork):
        command("prune", cross_encoder, "--data", data, "--out", tmp_path / "out", "--quiet", *options)
    assert asked == [0.25, [("target_macs", 0.25), ("target_macs", 0.5)]]
    assert (
        capsys.readouterr().err.strip()
        == "warning: --target-flops is deprecated and will be removed in the next version: use --target-macs"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["give one of target_speedup, target_latency_ms, target_parameters, target_macs"]),
        (["--structure", "even", "--target-macs", "0.5"], ["structure", "'free' or 'stock'"]),
        (["--importance", "random", "--target-macs", "0.5"], ["importance", "'obs', 'fisher' or 'magnitude'"]),
        (["--runtime", "tensorrt", "--target-speedup", "2"], ["runtime", "'onnxruntime' or 'openvino'"]),
        (["--vocabulary", "all"], ["no such vocabulary", "'all'", "--vocabulary"]),
        (["--target-macs", "0.5", "--min-count", "2"], ["--min-count 2", "add --vocabulary corpus"]),
        (["--target-macs", "0.5", "--characters", "corpus"], ["--characters corpus", "add --vocabulary corpus"]),
        (["--target-macs", "0.5", "--heads", "0.5"], ["give one target", "target_macs, heads"]),
        (["--target-macs", "0.5", "--ffn", "1"], ["give one target", "target_macs, ffn"]),
        (["--target-macs", "0.5", "--target-speedup", "2"], ["give one target", "target_speedup, target_macs"]),
        (["--heads", "0.5", "--structure", "stock"], ["stock keeps all heads"]),
        (["--target-speedup", "1"], ["target_speedup", "greater than 1"]),
        (["--target-speedup", "2", "--target-speedup", "0"], ["target_speedup", "greater than 1"]),
        (["--target-speedup", "2", "--target-speedup", "2.0"], ["given twice"]),
        (["--target-latency-ms", "-5"], ["target_latency_ms", "greater than 0"]),
        (["--target-parameters", "2"], ["target_parameters", "less than 1"]),
        (["--heads", "1.5"], ["heads", "less than or equal to 1"]),
        (["--weight-sparsity", "1"], ["weights.sparsity", "less than 1"]),
        (["--weight-pattern", "1:4"], ["weights.pattern", "'unstructured' or '2:4'"]),
        (["--weight-pattern", "2:4", "--weight-sparsity", "0.7"], ["weights", "2:4 has a sparsity of 0.5"]),
        (["--target-macs", "0.5", "--max-length", "515"], ["max_length", "515", "at most 514 tokens"]),
    ],
    ids=lambda value: " ".join(value[:4]) or "nothing",
)
def test_prune_with_options_that_do_not_fit(
    prune: Callable[..., tuple[int, str]], tmp_path: Path, options: list[str], words: list[str]
) -> None:
    clear_fault(prune(*options), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option", [["--target-macs", "half"], ["--min-count", "0"], ["--calibration-queries", "1"], ["--threads", "-1"]]
)
def test_prune_with_numbers_that_are_none(prune: Callable[..., tuple[int, str]], option: list[str]) -> None:
    code, message = prune(*option)
    assert code == 2 and message.startswith("error: ") and option[0] in message


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("two-labels", ["num_labels=2"]),
        ("gpt2", ["not an encoder"]),
        ("nowhere", ["cannot be opened", "nowhere"]),
        ("encoder", ["weights"]),
    ],
)
def test_prune_of_what_cannot_rank(
    prune: Callable[..., tuple[int, str]], models: Path, tmp_path: Path, model: str, words: list[str]
) -> None:
    clear_fault(prune("--target-macs", "0.5", model=models / model), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", [remove("qrels/train.tsv"), rewrite("qrels/train.tsv", [("q0", "d0", "0")])])
def test_prune_without_train_queries(
    prune: Callable[..., tuple[int, str]], data: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(data)
    clear_fault(prune("--target-macs", "0.5"), "'train' split")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("prepare", [thesis, earlier_run, lambda folder: folder.write_text("a file")])
def test_prune_into_a_folder_in_use(
    prune: Callable[..., tuple[int, str]], tmp_path: Path, prepare: Callable[[Path], Any]
) -> None:
    prepare(tmp_path / "out")
    before = snapshot(tmp_path / "out")
    clear_fault(prune("--target-macs", "0.5"), "something else", "--out")
    assert snapshot(tmp_path / "out") == before


def test_prune_of_the_model_in_its_own_output_folder(
    prune: Callable[..., tuple[int, str]], cross_encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "speedup-2").parent.mkdir()
    cross_encoder.rename(out / "speedup-2")
    (out / "family.json").write_text("[]")
    before = snapshot(out)
    clear_fault(prune("--target-macs", "0.5", model=out / "speedup-2"), "holds the model", "--out")
    assert snapshot(out) == before
