"""What resuming keeps, and what an interruption leaves."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import SIGMOID, make_pico
from run_samples import QUICK, FinishedRun, recipe_for
from transformers import BertTokenizerFast

from hfcompress import pipeline
from hfcompress.cli import main
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.models.macs import encoder_macs
from hfcompress.models.surgery import current_plan
from hfcompress.recipe import Recipe
from hfcompress.report.report import RunReport
from hfcompress.steps.context import RunContext, stages
from hfcompress.steps.workspace import StepFolder, StepModel
from hfcompress.utils.log import lines_to


@pytest.fixture
def settings(run_inputs: Path, tmp_path: Path, tokenizer: BertTokenizerFast) -> dict:
    """A recipe for a teacher of two layers, which are exported sooner than four, and one int8 graph."""
    save_checkpoint(tmp_path / "encoder", make_pico(num_hidden_layers=2), tokenizer, SIGMOID, 32)
    settings = recipe_for(run_inputs)
    settings["teacher"]["model"] = str(tmp_path / "encoder")
    settings["quantize"]["artifacts"] = settings["quantize"]["artifacts"][:1]
    return settings


def test_resuming_keeps_finished_steps_and_redoes_what_changed(settings: dict, tmp_path: Path) -> None:
    del settings["recover"]
    settings["prune"] = {"heads": 0.5, "ffn": 0.5, "ffn_multiple": 8, "calibration_queries": 8}
    out = tmp_path / "out"
    first = pipeline.run(Recipe.model_validate(settings), out, progress=False)
    said: list[str] = []
    with lines_to(said.append):
        again = pipeline.run(Recipe.model_validate(settings), out, resume=True, progress=False)
    assert all(step.reused for step in again.steps)
    assert said[1] == f"plan for {out}: 6 steps, 6 of them kept"
    assert all(re.search(r" \(kept, took [\d.]+ \w+( \d+ s)?\)$", line) for line in said[2:8])
    assert sum("kept from an earlier run" in line for line in said) == len(again.steps)
    assert again.teacher.per_query == first.teacher.per_query
    assert again.license == "" and "license: unknown" in (out / "README.md").read_text()
    settings["publish"] = {"license": "mit"}
    licensed = pipeline.run(Recipe.model_validate(settings), out, resume=True, progress=False)
    assert all(step.reused for step in licensed.steps) and "license: mit" in (out / "README.md").read_text()
    settings["prune"]["heads"] = 0.25
    said.clear()
    with lines_to(said.append):
        changed = pipeline.run(Recipe.model_validate(settings), out, resume=True, progress=False)
    assert said[1] == f"plan for {out}: 6 steps, 1 of them kept"
    assert ["kept, took" in line for line in said[2:8]] == [True, False, False, False, False, False]
    assert all("(last took " in line for line in said[3:8]) and said[8].startswith("the steps to do took ")
    assert {step.name: step.reused for step in changed.steps} == {
        "teacher": True,
        "prune": False,
        "int8": False,
        "calibrate": False,
        "sequence": False,
        "evaluate": False,
    }
    assert sum(len(layer.heads) for layer in changed.pruning.layers) == 2


def test_a_searched_plan_and_a_smaller_vocabulary_go_through_all_steps(
    run_inputs: Path, finished_run: FinishedRun
) -> None:
    out, said, _ = finished_run
    pruning = RunReport.load(out).pruning
    assert pruning is not None and pruning.vocabulary is not None
    assert (pruning.importance, pruning.target) == ("obs", "macs 0.5")
    assert pruning.encoder_macs_kept <= 0.5 and pruning.calibration_loss is not None
    assert any(line.startswith("prune: keeps ") for line in said)
    before, after = load_tokenizer(str(run_inputs / "encoder")), load_tokenizer(str(out))
    assert (pruning.vocabulary.tokens_before, pruning.vocabulary.tokens_after) == (len(before), len(after))
    assert len(after) < len(before)
    for folder in (out, *(out / ".hfcompress" / step for step in ("prune", "recover", "int8"))):
        assert load_tokenizer(str(folder)).get_vocab() == after.get_vocab()
        model = load_model(str(folder))
        assert model.get_input_embeddings().num_embeddings == model.config.vocab_size == len(after)
        assert [(layer.layer, list(layer.heads), len(layer.ffn)) for layer in current_plan(model).layers] == [
            (layer.layer, layer.heads, layer.ffn) for layer in pruning.layers
        ]
    # The teacher keeps all of its tokens.
    assert len(load_tokenizer(str(out / ".hfcompress" / "teacher"))) == len(before)
    assert f"{len(after)} of {len(before)} tokens remain in the vocabulary" in (out / "README.md").read_text()


@pytest.mark.soak
def test_pruning_in_stages(run_inputs: Path, tmp_path: Path) -> None:
    settings = recipe_for(run_inputs)
    settings["prune"] = {"target_macs": 0.36, "stages": 2, "calibration_queries": 6, "search_steps": 2}
    settings["prune"] |= {"ffn_multiple": 4, "vocabulary": {}}
    settings["quantize"]["artifacts"] = settings["quantize"]["artifacts"][:1]
    out, said = tmp_path / "out", []
    with lines_to(said.append):
        report = pipeline.run(Recipe.model_validate(settings), out, progress=False)
    assert [step.name for step in report.steps] == [
        "teacher", "prune-1", "scores", "recover-1", "prune-2", "recover-2", "int8", "calibrate",
        "sequence", "evaluate",
    ]  # fmt: skip
    assert report.pruning is not None and report.pruning.target == "macs 0.36"
    teacher, first, last = (load_model(str(out / ".hfcompress" / name)) for name in ("teacher", "prune-1", "recover-2"))
    full, half, least = (encoder_macs(each.config, current_plan(each)) for each in (teacher, first, last))
    assert report.pruning.encoder_macs_kept == pytest.approx(least / full) and least <= 0.36 * full
    assert 0.36 * full < half <= 0.6 * full
    assert first.config.vocab_size == teacher.config.vocab_size > last.config.vocab_size
    assert pipeline.run(Recipe.model_validate(settings), out, resume=True, progress=False).steps[4].reused
    last_stage = {**settings, "prune": {**settings["prune"], "vocabulary": {"min_count": 2}}}
    with lines_to(said.append):
        again = pipeline.run(Recipe.model_validate(last_stage), out, resume=True, progress=False)
    assert [step.name for step in again.steps if not step.reused] == [
        "prune-2",
        "recover-2",
        "int8",
        "calibrate",
        "sequence",
        "evaluate",
    ]


def test_a_searched_plan_is_kept_until_something_that_it_depends_on_changes(
    run_inputs: Path, finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished_run.out, out)
    monkeypatch.setattr("hfcompress.steps.recover.fit", interrupted)
    monkeypatch.setattr(pipeline, "publish_locally", interrupted)  # where recover is kept too

    def kept(settings: dict) -> bool:
        said: list[str] = []
        with pytest.raises(KeyboardInterrupt), lines_to(said.append):
            pipeline.run(Recipe.model_validate(settings), out, resume=True, progress=False)
        assert any(line.startswith("teacher: kept") for line in said)
        return any(line.startswith("prune: kept") for line in said)

    settings = recipe_for(run_inputs)
    assert kept(settings)
    settings["prune"]["vocabulary"]["min_count"] = 4
    assert not kept(settings) and kept(settings)
    settings["prune"]["target_macs"] = 0.6
    assert not kept(settings) and kept(settings)


def test_a_plan_for_a_target_of_time_depends_on_how_time_is_measured(run_inputs: Path, tmp_path: Path) -> None:
    class Recorder:
        def step(self, name: str, inputs: list, work: object, what: str) -> StepFolder:
            seen.append(json.dumps(inputs, sort_keys=True))
            return StepFolder(tmp_path, "")

    seen: list[str] = []
    for budget in ({"target_speedup": 2.0}, {"heads": 0.5}):
        seen.clear()
        for changes in (
            {}, {"threads": 2}, {"batch_tokens": 512}, {"artifacts": [{"runtime": "openvino"}]}, {"margin": 0.5}
        ):  # fmt: skip
            settings = {**recipe_for(run_inputs), "prune": budget}
            section = "quantize" if "artifacts" in changes else "evaluate"
            settings[section] = {**settings[section], **changes}
            context = RunContext(Recipe.model_validate(settings), None, Recorder(), False)  # type: ignore[arg-type]
            pipeline.prune(context, StepModel("teacher", "a fingerprint"), stages(context.recipe)[0])
        same, *others = (text == seen[0] for text in seen)
        assert same and others == ([False, False, False, True] if "target_speedup" in budget else [True] * 4)


def test_an_interrupted_run_is_completed_by_resume(
    settings: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings["teacher"].pop("train")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    command = ["hfcompress", "run", str(path), "--out", str(tmp_path / "out"), "--resume", "--quiet"]
    monkeypatch.setattr("sys.argv", command)
    with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr("hfcompress.steps.quantize.write_quantized", interrupted)
        main()
    assert ended.value.code == 130
    (told,) = capsys.readouterr().err.splitlines()[-1:]
    assert shlex.split(told)[1:] == command[1:]
    assert not (tmp_path / "out" / "report.json").exists()
    main([*command[1:], "--json", "-"])
    printed = capsys.readouterr()
    assert RunReport.model_validate_json(printed.out) == (report := RunReport.load(tmp_path / "out"))
    assert "student-torch" in printed.err and "95% interval" in printed.err
    assert {step.name: step.reused for step in report.steps} == {
        "prune": True,
        "scores": True,
        "recover": True,
        "int8": False,
        "calibrate": False,
        "sequence": False,
        "evaluate": False,
    }


def interrupted(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.soak
def test_recovery_on_features_and_with_regularization(
    run_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, out, weights = recipe_for(run_inputs), tmp_path / "out", []
    settings["teacher"].pop("train")
    settings["prune"] = {"heads": 0.5, "ffn": 0.5, "layers": [0, 3], "calibration_queries": 8, "ffn_multiple": 8}
    monkeypatch.setattr("hfcompress.steps.quantize.write_quantized", interrupted)
    regularization = {"dropout": 0.1, "r_drop": 1.0, "adversarial": 0.5}
    recovery = settings["recover"]
    for features, optimization in (
        (None, QUICK),
        ({"hidden": 1.0, "relation_layer": 3, "decay": 1.0}, QUICK),
        (None, QUICK | regularization),
    ):
        said: list[str] = []
        settings["recover"] = {**recovery, "features": features, "optimization": optimization}
        with pytest.raises(KeyboardInterrupt), lines_to(said.append):
            pipeline.run(Recipe.model_validate(settings), out, resume=True, progress=False)
        assert any(line.startswith("recover: steps") for line in said)
        assert any(line.startswith("scores: kept") for line in said) == bool(weights)
        weights.append(load_model(str(out / ".hfcompress" / "recover")).state_dict())
    for first, second in ((0, 1), (0, 2)):
        assert any((weights[first][name] != weights[second][name]).any() for name in weights[0])
