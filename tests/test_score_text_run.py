"""A run whose models read BM25 scores in their texts: what its steps read and write, and what opens it again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import IDENTITY, MARK, WORDS, make_pico, write_beir
from datasets import load_from_disk
from report_samples import example_report
from transformers import BertTokenizerFast, PreTrainedTokenizerBase

import hfcompress
from hfcompress import pipeline
from hfcompress.card import render
from hfcompress.cli import main
from hfcompress.compress.compress import compress
from hfcompress.compress.context import CompressContext
from hfcompress.compress.goal import Goal
from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData
from hfcompress.data.trec_run import read_run
from hfcompress.errors import HfCompressError, ModelError, RecipeError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_tokenizer
from hfcompress.optimum_config import RankerCompressionConfig
from hfcompress.recipe import DataStep, Recipe, ScoreText
from hfcompress.report.report import RunReport
from hfcompress.steps.checks import check

SETTINGS = ScoreText(bm25_max=4.0)
QUICK = {"epochs": 1, "learning_rate": 1e-3}
DIGITS = [f"{before}{digit}" for before in ("", "##") for digit in range(10)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, word_data: RankingData) -> Path:
    """Data, and a cross-encoder whose tokenizer has digits."""
    folder = tmp_path_factory.mktemp("inputs")
    write_beir(folder / "words", word_data)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", MARK, *WORDS, *DIGITS]))
    digits = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32)
    save_checkpoint(folder / "encoder", make_pico(), digits, IDENTITY, 32)
    return folder


def recipe_for(inputs: Path, **changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "name": "scored",
        "data": {"sets": [str(inputs / "words")], "candidates": 6, "score_text": SETTINGS.model_dump()},
        "teacher": {"model": str(inputs / "encoder"), "max_length": 32, "train": {"optimization": QUICK}},
        "prune": {
            "heads": 0.75, "ffn": 0.75, "calibration_queries": 8, "search_steps": 2,
            "vocabulary": {"min_count": 8, "characters": "corpus"},
        },
        "recover": {"documents": 4, "teachers": [{}, {"bm25": True}], "optimization": QUICK},
        "quantize": {"artifacts": [{"runtime": "onnxruntime", "mode": "static"}], "calibration_pairs": 8},
        "evaluate": {
            "latency_queries": 2, "rounds": 2, "threads": 2, "single_thread_queries": 2, "cold_start": False,
            "min_rank_correlation": 0,
        },
    }  # fmt: skip
    return Recipe.model_validate(settings | changes)


@pytest.fixture(scope="module")
def scored(inputs: Path) -> RankingData:
    return load_data(recipe_for(inputs).data, progress=False)


@pytest.fixture(scope="module")
def right(scored: RankingData) -> set[tuple[str, str]]:
    """Every pair of a query and a document, as models are to read it."""
    return {pair for query in scored.queries for pair in scored.pairs(query, scored.corpus)}


Read = list[tuple[str, str]]


@pytest.fixture(scope="module")
def read() -> Iterator[Read]:
    """All pairs that any tokenizer has been given."""
    found: Read = []
    original = PreTrainedTokenizerBase.__call__

    def call(self: Any, text: Any = None, text_pair: Any = None, *arguments: Any, **options: Any) -> Any:
        if text_pair is not None:
            both = ([text], [text_pair]) if isinstance(text, str) else (text, text_pair)
            found.extend(zip(*both, strict=True))
        return original(self, text, text_pair, *arguments, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PreTrainedTokenizerBase, "__call__", call)
        yield found


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory, read: Read) -> tuple[Path, Read, RunReport]:
    """A run, what its steps have read, and its report."""
    out = tmp_path_factory.mktemp("run") / "out"
    read.clear()
    report = pipeline.run(recipe_for(inputs), out, progress=False)
    return out, list(read), report


@pytest.fixture(scope="module")
def plain(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same family that reads documents alone."""
    folder = tmp_path_factory.mktemp("plain") / "model"
    save_checkpoint(folder, make_pico(seed=3), load_tokenizer(str(inputs / "encoder")), IDENTITY, 32)
    return folder


def test_every_step_reads_scores(finished: tuple[Path, Read, RunReport], right: set[tuple[str, str]]) -> None:
    out, read, report = finished
    assert len(read) > 1000 and set(read) <= right
    assert report.explanation and report.explanation.steady_saliency  # explanations have read some too
    assert report.artifacts[-1].single_thread
    lists = load_from_disk(str(out / ".hfcompress" / "scores"))
    assert {(row["query"], text) for row in lists for text in row["documents"]} <= right


def test_the_run_records_how(finished: tuple[Path, Read, RunReport]) -> None:
    out, _, report = finished
    for folder in (out, *(out / ".hfcompress" / step for step in ("teacher", "prune", "recover", "int8"))):
        config = json.loads((folder / "config.json").read_text())
        assert config["score_text"] == {"bm25_max": 4.0, "separator": "[SEP]"}
    settings = RankerCompressionConfig.from_pretrained(out)
    assert settings.recipe["data"]["score_text"] == SETTINGS.model_dump()
    assert report.data.score_text == SETTINGS and RunReport.load(out).data.score_text == SETTINGS
    card = (out / "README.md").read_text()
    assert "**This model reads every document behind its BM25 score**" in card
    assert "behind its BM25 score over the 120 documents of the corpus" in card


def test_a_smaller_vocabulary_reads_the_same_numbers(inputs: Path, finished: tuple[Path, Read, RunReport]) -> None:
    before, after = load_tokenizer(str(inputs / "encoder")), load_tokenizer(str(finished[0]))
    assert len(after) < len(before)
    for number in range(101):
        text = f"{number} [SEP] {MARK}"
        assert after.tokenize(text) == before.tokenize(text) and "[UNK]" not in after.tokenize(text)


@pytest.fixture
def call(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Runs a command on the data; returns the figures that it wrote."""

    def run(verb: str, *arguments: object) -> dict[str, Any]:
        figures = tmp_path / "figures.json"
        data = ["--data", str(inputs / "words"), "--candidates", "6"]
        main([verb, *map(str, arguments), *data, "--json", str(figures), "--quiet"])
        capsys.readouterr()
        return json.loads(figures.read_text())

    return run


def scores_of(path: Path) -> list[float]:
    return [score for documents in read_run(path).values() for score in documents.values()]


def test_evaluate_gives_a_model_the_texts_that_its_config_asks_for(
    call: Callable[..., dict[str, Any]],
    finished: tuple[Path, Read, RunReport],
    scored: RankingData,
    tmp_path: Path,
) -> None:
    out, _, report = finished
    (found,) = call("evaluate", out, "--runtime", "torch", "--run", tmp_path / "own.run")["artifacts"]
    student = next(artifact for artifact in report.artifacts if artifact.name == "student-torch")
    assert found["per_query"] == pytest.approx(student.per_query)
    ranker = hfcompress.load_ranker(out, "torch")
    run = read_run(tmp_path / "own.run")
    for query, documents in run.items():
        expected = ranker.score(scored.pairs(query, list(documents)))
        np.testing.assert_allclose(list(documents.values()), expected, atol=1e-5)

    other = shutil.copytree(out, tmp_path / "other", ignore=shutil.ignore_patterns(".hfcompress"))
    config = json.loads((other / "config.json").read_text())
    del config["score_text"]
    (other / "config.json").write_text(json.dumps(config))
    call("evaluate", other, "--runtime", "torch", "--run", tmp_path / "other.run")
    assert not np.allclose(scores_of(tmp_path / "other.run"), scores_of(tmp_path / "own.run"), atol=1e-3)


def test_compare_gives_each_of_two_models_its_own_texts(
    call: Callable[..., dict[str, Any]],
    finished: tuple[Path, Read, RunReport],
    plain: Path,
    read: Read,
    right: set[tuple[str, str]],
) -> None:
    out = finished[0]
    read.clear()
    both = call("compare", plain, out / "onnx" / "model_qint8_static.onnx")["artifacts"]
    with_scores, without = [pair for pair in read if pair in right], [pair for pair in read if pair not in right]
    assert with_scores and without and not any("[SEP]" in document for _, document in without)
    assert {(query, text.partition(" [SEP] ")[2]) for query, text in with_scores} == set(without)
    (alone,) = call("evaluate", plain)["artifacts"]
    assert both[0]["per_query"] == pytest.approx(alone["per_query"])
    assert both[1]["delta"]["mean"] == pytest.approx(
        both[1]["quality"]["ndcg@10"] - both[0]["quality"]["ndcg@10"], abs=1e-6
    )


def test_rank_cannot_know_the_scores(finished: tuple[Path, Read, RunReport], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "documents.txt").write_text("ba de\n")
    with pytest.raises(SystemExit) as end:
        main(["rank", str(finished[0]), "--query", "ba", "--docs", str(tmp_path / "documents.txt")])
    message = capsys.readouterr().err
    assert end.value.code == 2
    assert all(part in message for part in ("'bm25_max': 4.0", "hfcompress.text_with_score", "Expected"))


def test_prune_check_and_mine_read_the_scores_that_the_model_asks_for(
    inputs: Path, finished: tuple[Path, Read, RunReport], tmp_path: Path, read: Read, right: set[tuple[str, str]]
) -> None:
    teacher = str(finished[0] / ".hfcompress" / "teacher")
    read.clear()
    main([
        "prune", teacher, "--data", str(inputs / "words"), "--out", str(tmp_path / "half"), "--target-macs", "0.5",
        "--calibration-queries", "8", "--no-measure", "--quiet",
    ])  # fmt: skip
    assert read and set(read) <= right
    assert json.loads((tmp_path / "half" / "config.json").read_text())["score_text"] == SETTINGS.model_dump()
    read.clear()
    main(["data", "check", str(inputs / "words"), "--model", teacher, "--quiet"])
    assert read and set(read) <= right
    read.clear()
    main(["data", "mine", str(inputs / "words"), "--model", teacher, "--out", str(tmp_path / "mined"), "--quiet"])
    assert read and set(read) <= right


def test_compress_takes_the_texts_of_its_model(
    inputs: Path, finished: tuple[Path, Read, RunReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts: list[CompressContext] = []

    def interrupted(context: CompressContext) -> None:
        contexts.append(context)
        raise KeyboardInterrupt

    monkeypatch.setattr("hfcompress.compress.compress.measure_unpruned", interrupted)
    teacher, sets = str(finished[0] / ".hfcompress" / "teacher"), [str(inputs / "words")]
    with pytest.raises(KeyboardInterrupt):
        compress(teacher, sets, tmp_path / "out", Goal(seconds=60), candidates=6, threads=1, progress=False)
    (context,) = contexts
    assert context.recipe.data.score_text == SETTINGS
    assert context.data.score_text is not None and context.data.score_text.settings == SETTINGS


def test_a_teacher_trained_again_without_scores_forgets_them(
    inputs: Path, finished: tuple[Path, Read, RunReport], tmp_path: Path
) -> None:
    teacher = {"model": str(finished[0] / ".hfcompress" / "teacher"), "max_length": 32}
    recipe = recipe_for(
        inputs,
        data={"sets": [str(inputs / "words")], "candidates": 6},
        teacher={**teacher, "train": {"optimization": QUICK, "queries": 8}},
        prune=None,
        recover=None,
        quantize={"artifacts": []},
    )
    report = pipeline.run(recipe, tmp_path / "out", progress=False)
    assert report.data.score_text is None
    assert "score_text" not in json.loads((tmp_path / "out" / "config.json").read_text())


# What is refused before long work


def refused(recipe: Recipe, *words: str) -> HfCompressError:
    with pytest.raises(HfCompressError) as caught:
        check(recipe)
    for word in words:
        assert word in str(caught.value)
    return caught.value


@pytest.mark.parametrize("asked", [None, {"bm25_max": 5.0}, {"bm25_max": 4.0, "separator": "[MASK]"}])
def test_a_teacher_made_for_other_texts(
    inputs: Path, finished: tuple[Path, Read, RunReport], asked: dict[str, Any] | None
) -> None:
    teacher = {"model": str(finished[0] / ".hfcompress" / "teacher"), "max_length": 32}
    data = {"sets": [str(inputs / "words")], "score_text": asked}
    fault = refused(recipe_for(inputs, data=data, teacher=teacher), "'bm25_max': 4.0", "teacher's config.json")
    assert isinstance(fault, RecipeError)
    check(recipe_for(inputs, data={**data, "score_text": {"bm25_max": 4.0}}, teacher=teacher))


@pytest.mark.parametrize("separator", ["</s>", "", "ba de", "ü"])
def test_a_separator_that_is_no_token(inputs: Path, separator: str) -> None:
    data = {"sets": [str(inputs / "words")], "score_text": {"separator": separator}}
    assert isinstance(refused(recipe_for(inputs, data=data), repr(separator), "'[SEP]'"), RecipeError)


def test_a_tokenizer_without_digits(inputs: Path, cross_encoder: Path) -> None:
    recipe = recipe_for(inputs, teacher={"model": str(cross_encoder), "max_length": 32})
    assert isinstance(refused(recipe, "no digits", "[0, 1, 2, 3, 4]"), ModelError)


@pytest.mark.parametrize("settings", [{"bm25_max": 0}, {"bm25_max": -1}, {"bm25_max": "nan"}, {"k1": 2}, "bm25"])
def test_settings_that_do_not_fit(settings: Any) -> None:
    text = f"name: x\ndata: {{sets: [a], score_text: {json.dumps(settings)}}}\nteacher: {{model: b}}\n"
    with pytest.raises(RecipeError, match=r"data\.score_text"):
        Recipe.from_yaml(text)


def test_one_setting_turns_it_on() -> None:
    text = "name: x\ndata: {sets: [a]}\nteacher: {model: b}\n"
    assert Recipe.from_yaml(text).data.score_text is None
    for override in ("data.score_text.bm25_max=25", "data.score_text={}"):
        assert Recipe.from_yaml(text, [override]).data == DataStep(sets=["a"], score_text=ScoreText())


# The card


def test_code_of_the_card_writes_the_texts() -> None:
    report = example_report()
    settings = ScoreText(bm25_max=12.5, separator="</s>")
    changed = report.model_copy(update={"data": report.data.model_copy(update={"score_text": settings})})
    blocks = render(changed).split("```python\n")[1:]
    assert len(blocks) == 5 and "bm25 =" not in render(report) and "BM25 score" not in render(report)
    for block in blocks:
        start = block.index("folder =")
        names: dict[str, Any] = {"hfcompress": hfcompress}
        exec(block[start : block.index("]\n", block.index("bm25 =") + 20) + 2], names)
        assert names["documents"] == [
            "60 </s> list.sort() sorts the list in place.", "0 </s> tuple.count() counts a value."
        ]  # fmt: skip
