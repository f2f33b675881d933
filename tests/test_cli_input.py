"""Bad input on the command line: a clear message, exit code 2, no long work, and every folder as it was."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from tokenizers import Tokenizer
from tokenizers import models as tokenizer_models
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, DistilBertConfig, GPT2Config, PreTrainedTokenizerFast, RobertaConfig

from hfcompress import pipeline
from hfcompress.architectures import ARCHITECTURES
from hfcompress.cli import main
from hfcompress.plan import LayerPlan, PruningPlan
from hfcompress.recipe import Recipe
from hfcompress.workspace import STATE_FORMAT

DOCUMENTS = 12
POSITIONS = 64
Command = Callable[..., tuple[int, str]]
Change = tuple[str, Any]


class LongWork(Exception):
    """Raised in place of long work."""


# What the tests work on


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with the config and the tokenizer of pico models; faults are found before weights are read."""
    root = tmp_path_factory.mktemp("models")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "dog", *map(str, range(DOCUMENTS))]
    backend = Tokenizer(tokenizer_models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    sizes = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": 0,
    }
    plan = PruningPlan(6, 2, 64, tuple(LayerPlan(layer, (0, 1), tuple(range(64))) for layer in (1, 4)))
    pruned = {"format": 1, "architecture": ARCHITECTURES["bert"].to_dict(), "plan": plan.to_dict()}
    configs = {
        "encoder": BertConfig(**sizes, num_labels=1),
        "two-labels": BertConfig(**sizes, num_labels=2),
        "bert-decoder": BertConfig(**sizes, num_labels=1, is_decoder=True),
        "roberta": RobertaConfig(**{**sizes, "pad_token_id": 1}, num_labels=1),
        "distilbert": DistilBertConfig(vocab_size=len(words), dim=32, n_layers=2, n_heads=2, hidden_dim=64),
        "gpt2": GPT2Config(vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=POSITIONS),
        "pruned": BertConfig(**sizes, num_labels=1, hfcompress=pruned),
    }
    for name, config in configs.items():
        config.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    configs["encoder"].save_pretrained(root / "no-tokenizer")
    return root


def write_data(folder: Path) -> Path:
    """A small sound data folder with candidates and all three splits."""
    corpus = [{"_id": f"d{number}", "title": "", "text": f"the cat {number}"} for number in range(DOCUMENTS)]
    queries = [{"_id": f"q{number}", "text": f"the dog {number}"} for number in range(9)]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for split, numbers in (("train", range(4)), ("dev", range(4, 6)), ("test", range(6, 9))):
        write_table(folder / "qrels" / f"{split}.tsv", [(f"q{number}", f"d{number}", "1") for number in numbers])
        ranks = [(f"q{number}", f"d{(number + step) % 12}", str(step + 1)) for number in numbers for step in range(5)]
        write_table(folder / "bm25" / f"{split}.tsv", ranks)
    return folder


def write_table(path: Path, rows: list[tuple[str, str, str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


@pytest.fixture
def settings(models: Path, data: Path) -> dict[str, Any]:
    """A sound recipe that trains, prunes and recovers."""
    return {
        "name": "pico",
        "data": {"sets": [str(data)]},
        "teacher": {"model": str(models / "encoder"), "max_length": 32, "train": {}},
        "prune": {"heads": 0.5, "ffn": 0.5},
        "recover": {"documents": 4},
        "quantize": {"artifacts": [{"runtime": "onnxruntime", "mode": "dynamic"}]},
    }


def write_recipe(path: Path, settings: dict[str, Any], *changes: Change) -> Path:
    """Write a recipe with the values at dotted paths replaced."""
    copy = yaml.safe_load(yaml.safe_dump(settings))
    for key, value in changes:
        target = copy
        *parents, last = key.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    path.write_text(yaml.safe_dump(copy), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _no_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def long_work(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise LongWork

    for step in ("train_teacher", "prune", "recover", "quantize", "evaluate"):
        monkeypatch.setattr(pipeline, step, long_work)
    monkeypatch.setattr("hfcompress.rankers.base.BatchedRanker.score", long_work)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line; returns its exit code and what it wrote to stderr."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hfcompress", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


def snapshot(folder: Path) -> dict[str, bytes | None] | None:
    """All files and folders below `folder` with their contents; None where there is no such folder."""
    if not folder.exists():
        return None
    if folder.is_file():
        return {"": folder.read_bytes()}
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def earlier_run(folder: Path) -> Path:
    """The folder of an earlier run, with some outputs."""
    work = folder / ".hfcompress"
    (work / "teacher").mkdir(parents=True)
    (work / "teacher" / "model.safetensors").write_bytes(b"weights")
    steps = {"teacher": {"fingerprint": "0" * 64, "seconds": 1.0}}
    (work / "state.json").write_text(json.dumps({"format": STATE_FORMAT, "steps": steps}), encoding="utf-8")
    (folder / "README.md").write_text("# A card\n", encoding="utf-8")
    return folder


def clear_fault(result: tuple[int, str], *words: str) -> None:
    code, message = result
    assert code == 2
    assert message.startswith("error: ") and "Traceback" not in message
    assert "Expected: " in message and "Remedy: " in message
    missing = [word for word in words if word not in message]
    assert not missing, f"{missing} not in: {message}"


# Sound input gets as far as the long work, so that the faults below are the only ones


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


# run: recipes, models and budgets


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
        pytest.param([("prune.target_flops", 0.5)], ["not target_flops, heads, ffn"], id="target and shares"),
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
            id="relations of a layer that goes",
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


def test_layers_of_a_pruned_teacher_go_by_its_first_teachers_numbers(settings: dict[str, Any], models: Path) -> None:
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
        {"target_flops": 0.5, "vocabulary": {}},
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


# run: data


def rewrite(name: str, rows: list[tuple[str, str, str]]) -> Callable[[Path], None]:
    return lambda folder: write_table(folder / name, rows)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


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


# run: output folders


def thesis(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work", encoding="utf-8")


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
        patch.setattr(pipeline, "train_teacher", interrupted)
        code, message = command("run", recipe, "--out", out, "--quiet")
    assert code == 130 and "--resume" in message
    with pytest.raises(LongWork):
        command("run", recipe, "--out", out, "--quiet", "--resume")


# rank


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
    path.write_bytes("the\u2028cat\r\na\x0cdog\r\nthe\x85bird".encode())
    assert command("rank", cross_encoder, "--query", "cat", "--docs", path)[0] == 0
    assert ranked == ["the\u2028cat", "a\x0cdog", "the\x85bird"]


def test_rank_without_its_options(command: Command, models: Path) -> None:
    code, message = command("rank", models / "encoder")
    assert code == 2 and message.startswith("error: ") and "--query" in message


# evaluate


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


# prune


@pytest.fixture
def prune(
    tmp_path: Path, command: Command, cross_encoder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Runs `prune` of a sound model, up to the long work."""

    def long_work(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise LongWork

    monkeypatch.setattr("hfcompress.oneshot.prune_family", long_work)

    def run(*options: object, model: Path = cross_encoder) -> tuple[int, str]:
        return command("prune", model, "--data", data, "--out", tmp_path / "out", "--quiet", *options)

    return run


@pytest.mark.parametrize(
    "options",
    [
        ["--target-flops", "0.5"],
        ["--target-speedup", "2", "--target-speedup", "3", "--structure", "stock", "--runtime", "torch"],
        ["--heads", "0.5", "--ffn", "0.5", "--importance", "fisher"],
        ["--ffn", "0.5", "--structure", "stock"],
        ["--vocabulary", "corpus"],
        ["--target-parameters", "0.5", "--vocabulary", "corpus", "--min-count", "3", "--max-length", "514"],
        ["--weight-sparsity", "0.7"],
        ["--target-flops", "0.5", "--weight-pattern", "2:4"],
    ],
    ids=" ".join,
)
def test_prune_with_sound_options(prune: Callable[..., tuple[int, str]], options: list[str]) -> None:
    with pytest.raises(LongWork):
        prune(*options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["give one of target_speedup, target_latency_ms, target_parameters, target_flops"]),
        (["--structure", "even", "--target-flops", "0.5"], ["structure", "'free' or 'stock'"]),
        (["--importance", "random", "--target-flops", "0.5"], ["importance", "'obs', 'fisher' or 'magnitude'"]),
        (["--runtime", "tensorrt", "--target-speedup", "2"], ["runtime", "'onnxruntime' or 'openvino'"]),
        (["--vocabulary", "all"], ["no such vocabulary", "'all'", "--vocabulary"]),
        (["--target-flops", "0.5", "--min-count", "2"], ["--min-count 2", "add --vocabulary corpus"]),
        (["--target-flops", "0.5", "--characters", "corpus"], ["--characters corpus", "add --vocabulary corpus"]),
        (["--target-flops", "0.5", "--heads", "0.5"], ["give one target", "target_flops, heads"]),
        (["--target-flops", "0.5", "--ffn", "1"], ["give one target", "target_flops, ffn"]),
        (["--target-flops", "0.5", "--target-speedup", "2"], ["give one target", "target_speedup, target_flops"]),
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
        (["--target-flops", "0.5", "--max-length", "515"], ["max_length", "515", "at most 514 tokens"]),
    ],
    ids=lambda value: " ".join(value[:4]) or "nothing",
)
def test_prune_with_options_that_do_not_fit(
    prune: Callable[..., tuple[int, str]], tmp_path: Path, options: list[str], words: list[str]
) -> None:
    clear_fault(prune(*options), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option", [["--target-flops", "half"], ["--min-count", "0"], ["--calibration-queries", "1"], ["--threads", "-1"]]
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
    clear_fault(prune("--target-flops", "0.5", model=models / model), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", [remove("qrels/train.tsv"), rewrite("qrels/train.tsv", [("q0", "d0", "0")])])
def test_prune_without_train_queries(
    prune: Callable[..., tuple[int, str]], data: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(data)
    clear_fault(prune("--target-flops", "0.5"), "'train' split")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("prepare", [thesis, earlier_run, lambda folder: folder.write_text("a file")])
def test_prune_into_a_folder_in_use(
    prune: Callable[..., tuple[int, str]], tmp_path: Path, prepare: Callable[[Path], Any]
) -> None:
    prepare(tmp_path / "out")
    before = snapshot(tmp_path / "out")
    clear_fault(prune("--target-flops", "0.5"), "something else", "--out")
    assert snapshot(tmp_path / "out") == before


def test_prune_of_the_model_in_its_own_output_folder(
    prune: Callable[..., tuple[int, str]], cross_encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "speedup-2").parent.mkdir()
    cross_encoder.rename(out / "speedup-2")
    (out / "family.json").write_text("[]")
    before = snapshot(out)
    clear_fault(prune("--target-flops", "0.5", model=out / "speedup-2"), "holds the model", "--out")
    assert snapshot(out) == before


# card and inspect


@pytest.mark.parametrize("content", [None, "{}", "no JSON", '{"schema_version": 99}'])
def test_card_of_a_folder_without_a_report(tmp_path: Path, command: Command, content: str | None) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text("by hand", encoding="utf-8")
    if content is not None:
        (folder / "report.json").write_text(content, encoding="utf-8")
    before = snapshot(folder)
    clear_fault(command("card", folder), "report.json", str(folder))
    assert snapshot(folder) == before


def test_card_of_a_missing_folder(tmp_path: Path, command: Command) -> None:
    clear_fault(command("card", tmp_path / "nowhere"), "report.json", "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("content", ["", "no JSON", "{}", '{"importance": "obs", "layers_of": "many"}'])
def test_inspect_of_a_damaged_record_of_pruning(command: Command, models: Path, content: str) -> None:
    path = models / "pruned" / "pruning.json"
    path.write_text(content, encoding="utf-8")
    clear_fault(command("inspect", models / "pruned"), str(path))
    path.unlink()


@pytest.mark.parametrize("model", ["gpt2", "nowhere"])
def test_inspect_of_what_is_no_encoder(command: Command, models: Path, model: str) -> None:
    clear_fault(command("inspect", models / model), model)


# The command line itself


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["squeeze"], "squeeze"),
        (["compress"], "model"),
        (["run"], "recipe"),
        (["run", "recipe.yaml"], "--out"),
        (["run", "recipe.yaml", "--out", "out", "--fast"], "--fast"),
        (["prune", "model", "--out", "out"], "--data"),
        (["prune", "model", "--data", "x"], "--out"),
        (["evaluate", "model", "--data", "x", "--candidates", "many"], "--candidates"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_usage_errors(command: Command, arguments: list[str], word: str) -> None:
    code, message = command(*arguments)
    assert code == 2 and message.startswith("error: ") and word in message.lower()


def test_no_arguments_show_the_help(command: Command) -> None:
    code, message = command()
    assert code in (0, 2) and not message.rstrip().endswith("error:")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"model": "two-labels"}, ["num_labels=2", "num_labels=1"]),
        ({"model": "nowhere"}, ["cannot be opened", "nowhere"]),
        ({"model": "encoder", "max_length": POSITIONS + 1}, ["at most 64 tokens"]),
        ({"model": "encoder", "bm25": True}, ["name a model or bm25, not both"]),
        ({"bm25": True, "max_length": 16}, ["max_length goes with model"]),
        ({"file": "onnx/model_quantized.onnx"}, ["file goes with model"]),
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
