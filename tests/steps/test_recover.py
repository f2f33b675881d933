"""Teachers of the recovery and the lists that they score."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_pico
from datasets import Dataset, load_from_disk
from run_samples import recipe_for
from transformers import BertTokenizerFast

import hfcompress
from hfcompress import pipeline
from hfcompress.data.pseudo_queries import has_pseudo_queries
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.layout import ONNX_INT8
from hfcompress.models.load import load_model
from hfcompress.models.surgery import current_plan
from hfcompress.quantization.config import DynamicQuantizationConfig
from hfcompress.quantization.onnxruntime import export_onnx, quantize, save_onnx
from hfcompress.rankers.bm25 import Bm25Ranker
from hfcompress.recipe import Recipe, ScoreSource
from hfcompress.steps import inputs as run_data
from hfcompress.steps.checks import check_data
from hfcompress.steps.context import RunContext, stages
from hfcompress.steps.inputs import load_run_data, source_fingerprint
from hfcompress.steps.workspace import Workspace


def interrupt(*_args: object) -> None:
    raise KeyboardInterrupt


def recovery(inputs: Path, folder: Path, **changes: object) -> tuple[RunContext, Callable[[], Dataset]]:
    """A run whose teacher is a cross-encoder, and a function that recovers it and returns the scored lists."""
    settings = recipe_for(inputs)
    settings["teacher"] = {"model": str(inputs / "encoder"), "max_length": 32}
    settings["prune"] = {"heads": 0.5, "importance": "magnitude", "calibration_queries": 8}
    settings["recover"] = {**settings["recover"], "optimization": {"epochs": 1}, **changes}
    recipe = Recipe.model_validate(settings)
    workspace = Workspace(folder, resume=True)
    workspace.begin()
    run = RunContext(recipe, load_run_data(recipe, False), workspace, False)

    def recover() -> Dataset:
        teacher = pipeline.obtain_teacher(run)
        pipeline.recover(run, teacher, pipeline.score(run, teacher), teacher, stages(run.recipe)[0])
        return load_from_disk(str(folder / ".hfcompress" / "scores"))

    return run, recover


def test_several_teachers_unlabelled_and_made_queries(
    run_inputs: Path, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "other", make_pico(seed=5), tokenizer, "torch.nn.modules.activation.Sigmoid", 32)
    plain = recovery(run_inputs, tmp_path / "plain")[1]()
    folder = shutil.copytree(run_inputs / "words", tmp_path / "words")
    lines = (folder / "qrels" / "train.tsv").read_text().splitlines()
    (folder / "qrels" / "train.tsv").write_text("\n".join(lines[:31]))  # ten of forty train queries lose their labels
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "words").symlink_to(folder)
    (tmp_path / "again" / "encoder").symlink_to(run_inputs / "encoder")
    teachers = [{"weight": 2}, {"model": str(tmp_path / "other"), "max_length": 16}, {"bm25": True, "weight": 0.5}]
    more = {"teachers": teachers, "unlabelled": True, "pseudo_queries": 6}
    run, recover = recovery(tmp_path / "again", tmp_path / "more", **more)
    assert not has_pseudo_queries(run.data)  # its train queries do for pruning
    joined = recover()
    assert len(plain) == 40 and len(joined) == 46
    kinds = [("pseudo" if row["query_id"].startswith("pseudo") else max(row["labels"])) for row in joined]
    assert kinds.count("pseudo") == 6 and kinds.count(1.0) == 30 and kinds.count(0.0) == 10
    alone = {row["query_id"]: row["teacher_scores"] for row in plain}
    labelled = [row for row in joined if max(row["labels"]) and row["query_id"] in alone]
    assert len(labelled) == 30
    for row in labelled:  # on the scale of the first of the teachers, in another order
        assert np.mean(row["teacher_scores"]) == pytest.approx(np.mean(alone[row["query_id"]]), abs=1e-4)
        assert row["teacher_scores"] != pytest.approx(alone[row["query_id"]], abs=1e-3)


def test_a_graph_scores_as_a_teacher(run_inputs: Path, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    other = tmp_path / "other"
    save_checkpoint(other, make_pico(seed=5), tokenizer, "torch.nn.modules.linear.Identity", 32)
    graph = export_onnx(make_pico(seed=6, num_hidden_layers=1), tokenizer)  # of another model than the checkpoint
    save_onnx(graph, other / ONNX_INT8)
    run, recover = recovery(run_inputs, tmp_path / "out", teachers=[{"model": str(other), "file": ONNX_INT8}])
    ranker = hfcompress.load_ranker(other, file=ONNX_INT8, max_length=run.recipe.teacher.max_length)
    lists = recover()
    assert len(lists) == 40
    for row in lists.select(range(5)):
        pairs = [(row["query"], document) for document in row["documents"]]
        assert row["teacher_scores"] == pytest.approx(ranker.score(pairs).tolist(), abs=1e-4)
    source = ScoreSource(model=str(other), file=ONNX_INT8)
    before = source_fingerprint(source)
    save_onnx(quantize(graph, DynamicQuantizationConfig()), other / ONNX_INT8)
    assert source_fingerprint(source) != before


def test_an_interruption_at_the_second_teacher_loses_no_score_of_the_first(
    run_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recover = recovery(run_inputs, tmp_path / "out", teachers=[{}, {"bm25": True}])[1]
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Bm25Ranker, "score", interrupt)
        recover()
    monkeypatch.setattr(run_data, "Fp32Scorer", lambda *_, **__: SimpleNamespace(score=interrupt))
    assert len(recover()) == 40


def test_without_labelled_train_queries_a_run_goes_on_made_ones(run_inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(run_inputs / "words", tmp_path / "words")
    (tmp_path / "words" / "qrels" / "train.tsv").unlink()
    (tmp_path / "encoder").symlink_to(run_inputs / "encoder")
    run, recover = recovery(tmp_path, tmp_path / "out", pseudo_queries=12)
    assert len(run.data.splits["train"]) == 12 and has_pseudo_queries(run.data)
    check_data(run.recipe, run.data)
    assert len(recover()) == 12


def test_without_any_label_pruning_and_recovery_go_by_the_teacher(run_inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(run_inputs / "words", tmp_path / "words")
    (tmp_path / "words" / "qrels" / "train.tsv").unlink()
    (tmp_path / "encoder").symlink_to(run_inputs / "encoder")
    run, recover = recovery(tmp_path, tmp_path / "out", unlabelled=True)
    assert len(run.data.splits["train"]) == 40 and not run.data.splits["train"].labelled
    check_data(run.recipe, run.data)
    pruned = pipeline.prune(run, pipeline.obtain_teacher(run), stages(run.recipe)[0])
    assert not current_plan(load_model(pruned.name)).is_full
    assert {label for row in recover() for label in row["labels"]} == {0.0}
