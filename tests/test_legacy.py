"""Folders of before modules and names moved: a checkpoint and a run of then load, evaluate and resume now.

`legacy/` holds a pico teacher, its data, a recipe with former names, the run of it, and the scores of its files.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import hfcompress
from hfcompress import pipeline
from hfcompress.cli import main
from hfcompress.models.layout import ONNX_INT8
from hfcompress.models.surgery import current_plan
from hfcompress.recipe import Recipe
from hfcompress.report.report import RunReport
from hfcompress.utils.log import lines_to

LEGACY = Path(__file__).parent / "legacy"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, as the current folder, since the recipe names its inputs relative to it."""
    copied = shutil.copytree(LEGACY, tmp_path / "legacy")
    monkeypatch.chdir(copied)
    return copied


@pytest.mark.parametrize("file", json.loads((LEGACY / "scores.json").read_text())["scores"])
def test_every_file_scores_as_it_did(file: str) -> None:
    stored = json.loads((LEGACY / "scores.json").read_text())
    runtime = None if file.endswith(".onnx") else "torch"
    ranker = hfcompress.load_ranker(LEGACY / "run", runtime, None if file == "model.safetensors" else file)
    scores = ranker.score_in_batches([tuple(pair) for pair in stored["pairs"]], 1)
    if file == ONNX_INT8:  # other CPUs round in other kernels
        assert np.corrcoef(scores, stored["scores"][file])[0, 1] > 0.95
    else:
        np.testing.assert_allclose(scores, stored["scores"][file], atol=1e-5)


def test_the_checkpoint_loads_with_its_own_code(folder: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = hfcompress.load_model(str(folder / "run"))
    assert not current_plan(model).is_full
    alone = AutoModelForSequenceClassification.from_pretrained(folder / "run", trust_remote_code=True)
    assert {name: tensor.sum().item() for name, tensor in alone.state_dict().items()} == {
        name: tensor.sum().item() for name, tensor in model.state_dict().items()
    }


def test_the_report_and_what_was_pruned_are_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = RunReport.load(folder / "run")
    assert report.pruning is not None and 0 < report.pruning.encoder_macs_kept <= 0.5
    recipe = Recipe.from_yaml(report.recipe)
    assert recipe.prune is not None and recipe.prune.target == ("target_macs", 0.5)
    main(["inspect", "run"])
    assert "kept heads" in capsys.readouterr().out
    main(["card", "run"])
    assert (folder / "run" / "README.md").is_file()


def test_the_run_evaluates(folder: Path) -> None:
    main(["evaluate", "run", "--data", "words", "--baseline", "teacher", "--json", "result.json", "--quiet"])
    result = json.loads((folder / "result.json").read_text())
    assert [artifact["name"] for artifact in result["artifacts"]] == ["baseline", "model"]


def test_the_run_resumes_with_its_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts are new: artifacts are tested in a fixed sequence now. Weights are those of then without calibration."""
    then = RunReport.load(folder / "run").machine.versions
    monkeypatch.setattr("hfcompress.steps.workspace.versions", lambda: then)
    before = (folder / "run" / "model.safetensors").read_bytes()
    lines: list[str] = []
    with lines_to(lines.append):
        recipe = Recipe.load(Path("recipe.yaml"), ["calibrate=false"])
        report = pipeline.run(recipe, Path("run"), resume=True, progress=False)
    assert {step.name: step.reused for step in report.steps} == {
        "prune": True, "scores": True, "recover": True, "int8": True, "sequence": False, "evaluate": False,
    }  # fmt: skip
    assert [line.partition(":")[0] for line in lines if ": done in" in line] == ["sequence", "evaluate"]
    assert (folder / "run" / "model.safetensors").read_bytes() == before


def test_the_run_resumes_with_another_margin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    then = RunReport.load(folder / "run").machine.versions
    monkeypatch.setattr("hfcompress.steps.workspace.versions", lambda: then)
    recipe, lines = Recipe.load(Path("recipe.yaml"), ["evaluate.margin=0.02"]), []
    with pytest.warns(FutureWarning, match="say="):  # the former way to get lines
        report = pipeline.run(recipe, Path("run"), resume=True, progress=False, say=lines.append)
    assert "int8: kept from an earlier run" in "\n".join(lines)
    assert [step.name for step in report.steps if not step.reused] == ["calibrate", "sequence", "evaluate"]
    assert report.artifacts[0].delta is not None and report.artifacts[0].delta.margin == 0.02
