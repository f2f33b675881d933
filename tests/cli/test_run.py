"""Recipes, models, data and output folders that `run` refuses before any long work, and sound ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from command_line import (
    DOCUMENTS,
    POSITIONS,
    Change,
    Command,
    LongWork,
    clear_fault,
    earlier_run,
    remove,
    rewrite,
    snapshot,
    thesis,
    write_recipe,
)

from hfcompress import pipeline
from hfcompress.models.architectures import ARCHITECTURES
from hfcompress.recipe import Recipe


def test_a_sound_recipe_reaches_the_training(tmp_path: Path, command: Command, settings: dict[str, Any]) -> None:
    recipe, out = write_recipe(tmp_path / "recipe.yaml", settings), tmp_path / "out"
    with pytest.raises(LongWork):
        command("run", recipe, "--out", out, "--quiet")
    assert json.loads((out / ".hfcompress" / "state.json").read_text(encoding="utf-8"))["steps"] == {}


def test_a_sound_recipe_goes_on_in_the_folder_of_an_earlier_run(
    tmp_path: Path, command: Command, settings: dict[str, Any]
) -> None:
    recipe, out = write_recipe(tmp_path / "recipe.yaml", settings), earlier_run(tmp_path / "out")
    before = snapshot(out)
    with pytest.raises(LongWork):
        command("run", recipe, "--out", out, "--quiet", "--resume")
    assert snapshot(out) == before


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_sound_models_of_other_families(
    tmp_path: Path, command: Command, settings: dict[str, Any], models: Path, family: str
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", settings, ("teacher.model", str(models / family)))
    with pytest.raises(LongWork):
        command("run", recipe, "--out", tmp_path / "out", "--quiet")


@pytest.fixture
def refused(tmp_path: Path, command: Command, settings: dict[str, Any]) -> Callable[..., None]:
    """Runs the recipe with changes into a new folder and into one of an earlier run; both have to stay as they were."""

    def check(changes: list[Change], words: list[str], *options: str) -> None:
        recipe = write_recipe(tmp_path / "recipe.yaml", settings, *changes)
        new, old = tmp_path / "new", earlier_run(tmp_path / "old")
        before = snapshot(old)
        clear_fault(command("run", recipe, "--out", new, "--quiet", *options), *words)
        assert not new.exists()
        clear_fault(command("run", recipe, "--out", old, "--quiet", "--resume", *options), *words)
        assert snapshot(old) == before

    return check


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param([("prune.hedas", 0.5)], ["prune.hedas", "Extra inputs"], id="unknown key"),
        pytest.param([("evaluate.metrics", ["ndgc@5"])], ["no such metric", "ndgc@5", "ndcg@K"], id="unknown metric"),
        pytest.param([("prune.heads", 1.5)], ["prune.heads", "less than or equal to 1"], id="share above 1"),
        pytest.param([("prune", None)], ["recover is set without prune"], id="recovery without pruning"),
        pytest.param([("prune.heads", 0.0)], ["no attention head", "prune.heads"], id="no heads"),
        pytest.param([("prune.layers", [])], ["layers to keep", "[]", "0 to 1"], id="no layers"),
        pytest.param([("prune.layers", [0, 2])], ["layers to keep", "[0, 2]", "0 to 1"], id="layer out of range"),
        pytest.param([("prune.layers", [1, 1])], ["layers to keep", "[1, 1]"], id="layer twice"),
        pytest.param([("teacher.max_length", POSITIONS + 1)], ["65", "at most 64 tokens"], id="over the positions"),
        pytest.param([("teacher.model", "package:nowhere/model")], ["'nowhere'", "pip install nowhere"], id="package"),
        pytest.param([("prune.heads", 0.1)], ["no attention head", "prune.heads"], id="share of less than a head"),
        pytest.param([("prune", {})], ["give one of target_speedup", "vocabulary"], id="no budget"),
        pytest.param([("prune.target_macs", 0.5)], ["not target_macs, heads, ffn"], id="target and shares"),
        pytest.param([("prune.structure", "stock")], ["leave out heads"], id="stock structure with fewer heads"),
        pytest.param([("prune", {"target_speedup": 1})], ["prune.target_speedup", "greater than 1"], id="no target"),
        pytest.param([("recover.optimization", {"freeze_layers": 2})], ["freeze_layers"], id="everything frozen"),
        pytest.param([("recover.features", {"relation": 0})], ["hidden or relation must be above 0"], id="no features"),
        pytest.param(
            [("recover.features", {"relation_layer": 2})], ["relation_layer=2", "[0, 1]"], id="relations of no layer"
        ),
        pytest.param(
            [("recover.features", {"relation_layer": 0}), ("prune.layers", [1])],
            ["relation_layer=0", "[1]"],
            id="relations of a pruned layer",
        ),
        pytest.param(
            [("recover.features", {}), ("prune.vocabulary", {})],
            ["recover.features", "prune.vocabulary"],
            id="features with a smaller vocabulary",
        ),
        pytest.param(
            [("recover.optimization", {"r_drop": 1.0})], ["r_drop", "set dropout above 0"], id="R-Drop without dropout"
        ),
        pytest.param([("recover.documents", DOCUMENTS)], ["too small", f"{DOCUMENTS} documents"], id="long lists"),
    ],
)
def test_recipes_that_cannot_be_run(refused: Callable[..., None], changes: list[Change], words: list[str]) -> None:
    refused(changes, words)


@pytest.mark.parametrize(
    ("model", "changes", "words"),
    [
        ("two-labels", [("teacher.train", None)], ["num_labels=2", "num_labels=1"]),
        ("gpt2", [], ["not an encoder", "'gpt2'", ", ".join(sorted(ARCHITECTURES))]),
        ("gpt2", [("teacher.train", None)], ["'gpt2'"]),
        ("bert-decoder", [], ["decoder", "is_decoder"]),
        ("nowhere", [], ["cannot be opened", "nowhere", "config.json"]),
        # RoBERTa numbers positions from 2 on.
        ("roberta", [("teacher.max_length", POSITIONS - 1)], ["63", "at most 62 tokens"]),
        ("no-tokenizer", [], ["tokenizer"]),
    ],
)
def test_models_that_cannot_be_compressed(
    refused: Callable[..., None], models: Path, model: str, changes: list[Change], words: list[str]
) -> None:
    refused([("teacher.model", str(models / model)), *changes], words)


def test_two_labels_are_no_fault_where_a_new_head_is_trained(
    tmp_path: Path, command: Command, settings: dict[str, Any], models: Path
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", settings, ("teacher.model", str(models / "two-labels")))
    with pytest.raises(LongWork):
        command("run", recipe, "--out", tmp_path / "out", "--quiet")


def test_layers_of_a_pruned_teacher_have_the_original_models_numbers(settings: dict[str, Any], models: Path) -> None:
    settings["teacher"] = {"model": str(models / "pruned"), "max_length": 32}
    settings["prune"] = {"layers": [4]}
    pipeline.check(Recipe.model_validate(settings))


def test_layers_that_a_pruned_teacher_no_longer_has(refused: Callable[..., None], models: Path) -> None:
    refused([("teacher.model", str(models / "pruned")), ("prune.layers", [0])], ["[0]", "prune.layers"])


def test_openvino_that_is_not_installed(refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfcompress.quantization.openvino.is_available", lambda: False)
    refused([("quantize.artifacts", [{"runtime": "openvino"}])], ["openvino", "pip install 'hfcompress[openvino]'"])


def test_a_runtime_for_measuring_that_is_not_installed(
    refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfcompress.quantization.openvino.is_available", lambda: False)
    refused([("prune", {"target_speedup": 2, "runtime": "openvino"})], ["pip install 'hfcompress[openvino]'"])


@pytest.mark.parametrize(
    "budget",
    [
        {"target_speedup": 2},
        {"target_latency_ms": 5},
        {"target_parameters": 0.5},
        {"target_macs": 0.5, "vocabulary": {}},
    ],
    ids=str,
)
def test_sound_targets(tmp_path: Path, command: Command, settings: dict[str, Any], budget: dict[str, Any]) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", settings, ("prune", budget))
    with pytest.raises(LongWork):
        command("run", recipe, "--out", tmp_path / "out", "--quiet")


def test_settings_on_the_command_line(refused: Callable[..., None]) -> None:
    refused([], ["prune.hedas"], "--set", "prune.hedas=0.5")


def test_setting_without_a_value(refused: Callable[..., None]) -> None:
    refused([], ["key=value", "prune.heads"], "--set", "prune.heads")


@pytest.mark.parametrize("content", [None, "", "- a list\n", "name: [\n"], ids=["missing", "empty", "list", "no YAML"])
def test_files_that_are_no_recipe(tmp_path: Path, command: Command, content: str | None) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    if content is not None:
        recipe.write_text(content, encoding="utf-8")
    clear_fault(command("run", recipe, "--out", out), "recipe")
    assert not out.exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(remove("corpus.jsonl"), ["no corpus.jsonl"], id="no corpus"),
        pytest.param(remove("queries.jsonl"), ["no queries.jsonl"], id="no queries"),
        pytest.param(remove("qrels/test.tsv"), ["no 'test' split", "qrels/test.tsv"], id="no test split"),
        pytest.param(remove("qrels/train.tsv"), ["no 'train' split", "qrels/train.tsv"], id="no train split"),
        pytest.param(rewrite("qrels/test.tsv", []), ["test.tsv is empty"], id="empty qrels"),
        *(
            pytest.param(
                rewrite(f"qrels/{split}.tsv", [(query, "d0", "0"), (query, "d1", "0")]),
                [f"{split!r} split", "no query with a relevant document"],
                id=f"no judged query in {split}",
            )
            for split, query in (("train", "q0"), ("dev", "q4"), ("test", "q6"))
        ),
        pytest.param(rewrite("qrels/test.tsv", [("q6", "d6", "1")]), ["One test query", "at least 2"], id="one query"),
        pytest.param(
            rewrite("qrels/test.tsv", [("q6", "d6", "1"), ("q99", "d6", "1")]),
            ["unknown query", "'q99'"],
            id="unknown query",
        ),
        pytest.param(
            rewrite("qrels/dev.tsv", [("q4", "d99", "1")]), ["unknown document", "'d99'"], id="unknown document"
        ),
        pytest.param(rewrite("qrels/test.tsv", [("q6", "d6", "0.5")]), ["'0.5'", "integer"], id="grade no integer"),
    ],
)
def test_data_that_cannot_be_used(
    refused: Callable[..., None], data: Path, damage: Callable[[Path], None], words: list[str]
) -> None:
    damage(data)
    refused([], words)


def test_missing_data_folder(refused: Callable[..., None], tmp_path: Path) -> None:
    refused([("data.sets", [str(tmp_path / "nowhere")])], ["no such data folder", str(tmp_path / "nowhere")])


def test_the_same_data_twice(refused: Callable[..., None], data: Path) -> None:
    refused([("data.sets", [str(data), str(data)])], ["same name", "'data'"])


def test_a_given_cross_encoder_that_is_only_measured_needs_no_train_split(
    tmp_path: Path, command: Command, settings: dict[str, Any], data: Path
) -> None:
    (data / "qrels" / "train.tsv").unlink()
    (data / "qrels" / "dev.tsv").unlink()
    changes = [("teacher.train", None), ("prune", None), ("recover", None)]
    recipe = write_recipe(tmp_path / "recipe.yaml", settings, *changes)
    with pytest.raises(LongWork):
        command("run", recipe, "--out", tmp_path / "out", "--quiet")


def hidden(folder: Path) -> None:
    (folder / ".git").mkdir(parents=True)


def work_folder_of_something_else(folder: Path) -> None:
    (folder / ".hfcompress").mkdir(parents=True)
    (folder / ".hfcompress" / "notes.txt").write_text("mine", encoding="utf-8")


def other_version(folder: Path) -> None:
    earlier_run(folder)
    (folder / ".hfcompress" / "state.json").write_text('{"format": 99, "steps": {}}', encoding="utf-8")


def cut_off(folder: Path) -> None:
    earlier_run(folder)
    (folder / ".hfcompress" / "state.json").write_text('{"format": 1, "st', encoding="utf-8")


@pytest.mark.parametrize(
    ("prepare", "options", "words"),
    [
        (thesis, [], ["something else", "thesis.txt", "--out"]),
        (thesis, ["--resume"], ["something else", "thesis.txt", "--out"]),
        (hidden, [], ["something else", ".git"]),
        (work_folder_of_something_else, ["--resume"], ["something else"]),
        (lambda folder: folder.write_text("a file"), [], ["is a file", "--out"]),
        (earlier_run, [], ["earlier run", "--resume", "--out"]),
        (other_version, ["--resume"], ["another version", "99"]),
        (cut_off, ["--resume"], ["state.json"]),
    ],
)
def test_output_folders_in_use(
    tmp_path: Path,
    command: Command,
    settings: dict[str, Any],
    prepare: Callable[[Path], Any],
    options: list[str],
    words: list[str],
) -> None:
    out = tmp_path / "out"
    prepare(out)
    before = snapshot(out)
    recipe = write_recipe(tmp_path / "recipe.yaml", settings)
    clear_fault(command("run", recipe, "--out", out, "--quiet", *options), *words)
    assert snapshot(out) == before


def test_an_empty_folder_may_be_used(tmp_path: Path, command: Command, settings: dict[str, Any]) -> None:
    (tmp_path / "out").mkdir()
    recipe = write_recipe(tmp_path / "recipe.yaml", settings)
    with pytest.raises(LongWork):
        command("run", recipe, "--out", tmp_path / "out", "--quiet")


def test_interrupted_runs_end_with_130_and_can_be_resumed(
    tmp_path: Path, command: Command, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_current: Any) -> NoReturn:
        raise KeyboardInterrupt

    recipe, out = write_recipe(tmp_path / "recipe.yaml", settings), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "do_steps", interrupted)
        code, message = command("run", recipe, "--out", out, "--quiet")
    assert code == 130 and "--resume" in message
    with pytest.raises(LongWork):
        command("run", recipe, "--out", out, "--quiet", "--resume")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"model": "two-labels"}, ["num_labels=2", "num_labels=1"]),
        ({"model": "nowhere"}, ["cannot be opened", "nowhere"]),
        ({"model": "encoder", "max_length": POSITIONS + 1}, ["at most 64 tokens"]),
        ({"model": "encoder", "bm25": True}, ["name a model or bm25, not both"]),
        ({"bm25": True, "max_length": 16}, ["max_length requires model"]),
        ({"file": "onnx/model_quantized.onnx"}, ["file requires model"]),
        (
            {"model": "encoder", "file": "onnx/model_quantized.onnx"},
            ["no such file", "onnx/model_quantized.onnx", "none"],
        ),
        ({"model": "encoder", "file": "config.json"}, ["no such file", "config.json"]),
        ({"bm25": True, "weight": 0}, ["weight", "greater than 0"]),
    ],
)
def test_teachers_that_cannot_be_used(
    refused: Callable[..., None], models: Path, source: dict[str, Any], words: list[str]
) -> None:
    if "model" in source:
        source = {**source, "model": str(models / source["model"])}
    refused([("recover.teachers", [{}, source])], words)


def test_unlabelled_queries_do_not_go_with_bce(refused: Callable[..., None]) -> None:
    refused([("recover.unlabelled", True), ("recover.loss", {"bce": 0.1})], ["loss.bce", "not relevant"])
