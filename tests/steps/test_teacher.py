"""The teacher of a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import IDENTITY, make_pico
from run_samples import recipe_for
from transformers import BertTokenizerFast

from hfcompress import pipeline
from hfcompress.errors import DataError, ModelError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import load_ranker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import Recipe, ScoreSource
from hfcompress.recipe.teacher import ScoreLabel, TeacherStep
from hfcompress.steps.checks import check
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


@pytest.fixture
def classifier(tmp_path: Path, tokenizer: BertTokenizerFast) -> Path:
    names = {0: "no", 1: "yes", 2: "perhaps"}
    model = make_pico(num_labels=3, id2label=names, label2id={name: number for number, name in names.items()})
    save_checkpoint(tmp_path / "nli", model, tokenizer, IDENTITY, 32)
    return tmp_path / "nli"


@pytest.mark.soak
def test_one_score_of_a_classifier_is_compressed(run_inputs: Path, classifier: Path, tmp_path: Path) -> None:
    settings = recipe_for(run_inputs)
    settings["teacher"] = {"model": str(classifier), "max_length": 32, "score": {"label": "yes", "against": "no"}}
    settings["prune"] = {"heads": 0.75, "importance": "magnitude", "calibration_queries": 8}
    settings["recover"]["teachers"] = [{}, {"model": str(classifier), "score": {"label": "yes"}, "weight": 0.5}]
    settings["quantize"]["artifacts"] = settings["quantize"]["artifacts"][:1]
    report = pipeline.run(Recipe.model_validate(settings), tmp_path / "out", progress=False)
    assert "teacher" in {step.name for step in report.steps}
    student, loaded = load_model(str(tmp_path / "out")), load_model(str(tmp_path / "out" / ".hfcompress" / "teacher"))
    assert student.config.num_labels == loaded.config.num_labels == 1
    data = load_run_data(Recipe.model_validate(settings), False)
    pairs = [(text, data.corpus[f"d{number}"].text) for number, text in enumerate(list(data.queries.values())[:5])]
    single = [load_model(str(classifier), score=ScoreLabel(label=name)) for name in ("yes", "no")]
    tokenizer = load_tokenizer(str(classifier), 32)
    yes, no = (TorchRanker(model, tokenizer).score(pairs) for model in single)
    np.testing.assert_allclose(TorchRanker(loaded, tokenizer).score(pairs), yes - no, atol=1e-5)


def test_a_missing_or_wrong_label_is_refused_before_the_work(run_inputs: Path, classifier: Path) -> None:
    settings = recipe_for(run_inputs)
    for score, message in ((None, r"teacher\.score: \{label: perhaps\}"), ({"label": "ja"}, "no, yes, perhaps")):
        settings["teacher"] = {"model": str(classifier), "max_length": 32, "score": score}
        with pytest.raises(ModelError, match=message):
            check(Recipe.model_validate(settings))
    settings["teacher"] = {"model": str(run_inputs / "encoder"), "max_length": 32}
    settings["recover"]["teachers"] = [{"model": str(classifier), "score": {"label": 7}}]
    with pytest.raises(ModelError, match="0 to 2"):
        check(Recipe.model_validate(settings))


def test_log_odds_against_several_labels_are_those_of_an_additional_teacher(run_inputs: Path, classifier: Path) -> None:
    settings, score = recipe_for(run_inputs), {"label": "yes", "log_odds": True}
    settings["recover"]["teachers"] = [{"model": str(classifier), "score": score}]
    check(Recipe.model_validate(settings))
    teacher = ScoreSource(model=str(classifier), score=score).score
    scorer = load_ranker(str(classifier), "torch", None, 32, RankerOptions(), score=teacher)
    pairs = [("ba de", "fi sun"), ("ba", "go lu ma")]
    logits = [
        TorchRanker(load_model(str(classifier), score=ScoreLabel(label=name)), load_tokenizer(str(classifier), 32))
        for name in range(3)
    ]
    no, yes, perhaps = (ranker.score(pairs) for ranker in logits)
    np.testing.assert_allclose(scorer.score(pairs), yes - np.logaddexp(no, perhaps), atol=1e-5)
    settings["teacher"] = {"model": str(classifier), "max_length": 32, "score": score}
    with pytest.raises(ModelError, match="no weighted sum"):
        check(Recipe.model_validate(settings))


def test_dumps_without_a_score_are_those_of_earlier_versions() -> None:
    assert "score" not in TeacherStep(model="m").model_dump() and "score" not in ScoreSource().model_dump()
    step = TeacherStep(model="m", score={"label": 1})
    assert TeacherStep.model_validate(step.model_dump(mode="json")) == step
    assert step.model_dump()["score"] == {"label": 1, "against": None}
    odds = ScoreLabel(label=1, log_odds=True)
    assert ScoreLabel.model_validate(odds.model_dump(mode="json")) == odds and odds.in_words == "log-odds of 1"
    for wrong in (
        {"model": "m", "score": {"label": 1}, "train": {}},
        {"model": "m", "score": {"label": 1, "against": 1}},
        {"model": "m", "score": {"label": 1, "against": 0, "log_odds": True}},
    ):
        with pytest.raises(ValueError, match=r"score|two labels|all other labels"):
            TeacherStep.model_validate(wrong)
