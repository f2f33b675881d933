"""Calibration as a step of a run: what it changes, what it keeps, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import IDENTITY, make_pico, random_inputs, write_beir
from modular_samples import head, write_modular
from run_samples import FinishedRun, recipe_for
from sentence_transformers.base.modules import Dense
from torch import nn
from transformers import BertTokenizerFast

import hfcompress
from hfcompress import pipeline
from hfcompress.cli import main
from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.score_map import root_mean_square
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.layout import ONNX_FP32, ONNX_INT8
from hfcompress.models.load import load_model
from hfcompress.models.score_head import rescale_score
from hfcompress.recipe import Recipe
from hfcompress.report.fidelity import ScoreMap
from hfcompress.report.report import RunReport
from hfcompress.steps.calibrate import CHECKPOINT, fold_maps
from hfcompress.steps.fidelity import OFF, recorded_maps

INT8 = [{"runtime": "onnxruntime", "mode": "dynamic"}]


def int8_recipe(inputs: Path, teacher: Path, **changes: object) -> Recipe:
    """A recipe that quantizes a model as it is."""
    settings = recipe_for(inputs)
    del settings["prune"], settings["recover"]
    settings["teacher"] = {"model": str(teacher), "max_length": 32}
    settings["quantize"]["artifacts"] = INT8
    settings["evaluate"]["min_rank_correlation"] = 0.0
    return Recipe.model_validate({**settings, **changes})


def scores(folder: Path, data: RankingData, split: str, file: str | None = None) -> np.ndarray:
    listed = data.splits[split].candidates.items()
    pairs = [pair for query, documents in listed for pair in data.pairs(query, documents)]
    return hfcompress.load_ranker(folder, None if file else "torch", file).score(pairs)


def test_scores_come_nearer_and_the_ranking_stays(finished_run: FinishedRun, word_data: RankingData) -> None:
    out, printed, _ = finished_run
    before, teacher = out / ".hfcompress" / "int8", out / ".hfcompress" / "teacher"
    wanted = scores(teacher, word_data, "dev")
    maps = recorded_maps(out)
    assert CHECKPOINT in maps and ONNX_INT8 in maps
    for path, found in maps.items():
        file = None if path == CHECKPOINT else path
        own, mapped = (scores(folder, word_data, "dev", file) for folder in (before, out))
        assert found.folded and found.scale > 0 and (found.split, found.pairs) == ("dev", 48)
        np.testing.assert_allclose(mapped, found.scale * own + found.shift, atol=1e-3, rtol=1e-3)
        drifts = [root_mean_square(each - wanted) for each in (own, mapped)]
        assert drifts[1] <= drifts[0] and drifts[0] == pytest.approx(found.before, rel=0.05)
        for split in ("dev", "test"):
            first, second = (scores(folder, word_data, split, file) for folder in (before, out))
            rows = zip(first.reshape(-1, 6), second.reshape(-1, 6), strict=True)
            assert all((np.argsort(a, kind="stable") == np.argsort(b, kind="stable")).all() for a, b in rows)
    assert any(line.startswith("calibrate: student-torch: ") for line in printed)


def test_fp32_graphs_and_checkpoint_agree_and_reload_bit_equal(
    finished_run: FinishedRun, word_data: RankingData
) -> None:
    out = finished_run.out
    np.testing.assert_allclose(scores(out, word_data, "test", ONNX_FP32), scores(out, word_data, "test"), atol=1e-4)
    found, student = recorded_maps(out)[CHECKPOINT], load_model(str(out / ".hfcompress" / "recover"))
    inputs = random_inputs(4, 9)
    inputs["input_ids"] %= student.config.vocab_size
    with torch.inference_mode():
        wanted = rescale_score(student, found.scale, found.shift)(**inputs).logits
        assert torch.equal(load_model(str(out))(**inputs).logits, wanted)


def test_the_report_has_score_fidelity(finished_run: FinishedRun) -> None:
    report = RunReport.load(finished_run.out)
    found = report.score_fidelity
    assert found is not None and (found.queries, found.pairs) == (12, 72)
    assert [each.name for each in found.artifacts] == [each.name for each in report.artifacts]
    assert [each.best for each in found.thresholds] == [True, False, False, False]
    assert all(each.map is not None and each.map.folded for each in found.artifacts)
    assert "## Score fidelity" in (finished_run.out / "README.md").read_text()
    assert (finished_run.out / "figures" / "reliability.png").is_file()


def test_inspect_shows_every_artifact(
    finished_run: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["inspect", str(finished_run.out), "--png", str(tmp_path / "structure.png")])
    printed = capsys.readouterr().out
    for artifact in RunReport.load(finished_run.out).artifacts:
        assert f"{artifact.name}: scores differ from the teacher's by " in printed
    assert printed.count("threshold best, ") == len(RunReport.load(finished_run.out).artifacts)


@pytest.mark.soak
def test_an_unpruned_model_keeps_its_weights(run_inputs: Path, tmp_path: Path, word_data: RankingData) -> None:
    out = tmp_path / "out"
    report = pipeline.run(int8_recipe(run_inputs, run_inputs / "encoder"), out, progress=False)
    assert list(recorded_maps(out)) == [ONNX_INT8]
    first, second = (load_model(str(folder)).state_dict() for folder in (run_inputs / "encoder", out))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert report.score_fidelity is not None and report.score_fidelity.activation == "Sigmoid"
    off = pipeline.run(
        int8_recipe(run_inputs, run_inputs / "encoder", calibrate=False), out, resume=True, progress=False
    )
    # The graph is that of before, the report has the thresholds that correspond to the teacher's, and no step is new.
    assert [step.name for step in off.steps if step.reused] == ["int8"]
    assert recorded_maps(out) == {} and not any(step.name == "calibrate" for step in off.steps)
    (artifact,) = off.score_fidelity.artifacts
    assert artifact.map is not None and artifact.map.reason == OFF and not artifact.map.folded
    assert all(each.corresponding is not None for each in artifact.thresholds)
    again = pipeline.run(int8_recipe(run_inputs, run_inputs / "encoder"), out, resume=True, progress=False)
    assert {step.name: step.reused for step in again.steps}["calibrate"]


def test_a_head_with_an_activation_is_left_alone(tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    modules = head("mean", bias=True, norm=False)
    modules[-1] = Dense(24, 1, activation_function=nn.Tanh(), module_output_name="scores")
    folder = write_modular(tmp_path / "tanh", tokenizer, "bert", modules)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found = ScoreMap(scale=2.0, shift=1.0, split="dev", queries=8, pairs=48, before=1.0, after=0.5)
    maps = fold_maps(folder, {CHECKPOINT: found, ONNX_INT8: found}, 32, [])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert all(not each.folded and "4_Dense: torch.nn.modules.activation.Tanh" in each.reason for each in maps.values())


@pytest.mark.soak
def test_without_dev_it_is_train_and_without_both_nothing(
    tmp_path: Path, tokenizer: BertTokenizerFast, word_data: RankingData
) -> None:
    splits = {name: split for name, split in word_data.splits.items() if name != "dev"}
    data = RankingData("words", word_data.queries, word_data.corpus, splits)
    inputs = tmp_path / "inputs"
    write_beir(inputs / "words", data)
    save_checkpoint(inputs / "encoder", make_pico(), tokenizer, IDENTITY, 32)
    out = tmp_path / "out"
    report = pipeline.run(int8_recipe(inputs, inputs / "encoder"), out, progress=False)
    assert {found.split for found in recorded_maps(out).values()} == {"train"}
    assert not any(each.best for each in report.score_fidelity.thresholds)  # no labels to choose it on
    for name in ("qrels", "bm25"):
        (inputs / "words" / name / "train.tsv").unlink()
    report = pipeline.run(int8_recipe(inputs, inputs / "encoder"), tmp_path / "alone", progress=False)
    assert [step.name for step in report.steps] == ["int8", "sequence", "evaluate"]
    assert json.loads((tmp_path / "alone" / "hfcompress_config.json").read_text())["calibration"] == {}
    assert report.score_fidelity.artifacts[0].map is None
