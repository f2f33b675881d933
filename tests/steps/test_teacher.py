"""The teacher of a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from run_samples import recipe_for

from hfcompress import pipeline
from hfcompress.errors import DataError
from hfcompress.recipe import Recipe
from hfcompress.steps.inputs import load_run_data


def test_without_any_judgement_the_teachers_order_is_what_counts(run_inputs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run_inputs / "words", tmp_path / "words")
    shutil.rmtree(folder / "qrels")
    settings = recipe_for(run_inputs)
    settings["data"]["sets"] = [str(folder)]
    settings["teacher"] = {"model": str(run_inputs / "encoder"), "max_length": 32}
    settings["prune"] = {"heads": 0.75, "importance": "magnitude", "calibration_queries": 8}
    settings["recover"] |= {"unlabelled": True}
    settings["quantize"]["artifacts"] = settings["quantize"]["artifacts"][:1]
    settings["evaluate"]["min_rank_correlation"] = 0
    with pytest.raises(DataError, match="no judgements"):
        load_run_data(Recipe.model_validate({**settings, "recover": None}), False)
    train = {**settings, "teacher": {**settings["teacher"], "train": {}}}
    with pytest.raises(DataError, match="relevant document"):
        pipeline.run(Recipe.model_validate(train), tmp_path / "refused", progress=False)
    report = pipeline.run(Recipe.model_validate(settings), tmp_path / "out", progress=False)
    assert report.teacher.quality["ndcg@10"] == 1.0
    assert all(0 < artifact.quality["ndcg@10"] < 1 for artifact in report.artifacts)
    assert any("how far its order is kept" in note for note in report.data.notes)
    assert "judge" in {step.name for step in report.steps}
