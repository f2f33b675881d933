"""A run that cannot fit into memory ends before it begins."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from conftest import make_pico
from run_samples import recipe_for

from hfcompress.errors import DeviceError
from hfcompress.models.load import load_config
from hfcompress.models.size import ModelSize
from hfcompress.quantization.artifacts import export_memory
from hfcompress.quantization.config import WeightQuantizationConfig
from hfcompress.quantization.quantizer import RankerQuantizer
from hfcompress.recipe import PruneStep, Recipe
from hfcompress.steps.checks import check
from hfcompress.steps.memory import kept_share
from hfcompress.utils import memory
from hfcompress.utils.device import Memory
from hfcompress.utils.memory import MemoryEstimate

PLENTY = 10**12


@pytest.mark.parametrize(
    ("without", "step"),
    [
        ((), "The teacher's training"),
        (("train",), "Pruning"),
        (("train", "target"), "Recovery"),
        (("train", "prune", "recover"), "Export with quantization"),
    ],
)
def test_a_run_is_refused_before_it_begins(
    run_inputs: Path, cross_encoder: Path, without: tuple[str, ...], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe_for(run_inputs)
    if "train" in without:
        settings["teacher"] = {"model": str(cross_encoder), "max_length": 32}
    if "target" in without:
        settings["prune"] = {"vocabulary": {}}  # nothing is searched
    recipe = Recipe.model_validate({key: value for key, value in settings.items() if key not in without})
    check(recipe)
    monkeypatch.setattr(memory, "memory_of", lambda device: Memory(1000, 1000))
    with pytest.raises(DeviceError, match=f"{step} needs more memory than this .*Remedy"):
        check(recipe)


def test_what_may_not_fit_is_named(
    run_inputs: Path, cross_encoder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = recipe_for(run_inputs)
    settings["teacher"] = {"model": str(cross_encoder), "max_length": 33}
    monkeypatch.setattr(memory, "memory_of", lambda device: Memory(1000, PLENTY))
    with caplog.at_level(logging.WARNING):
        check(Recipe.model_validate(settings))
    named = [message.partition(" may need")[0] for message in caplog.messages if "may need up to" in message]
    assert named == ["Pruning", "Recovery", "Export with quantization"]


def test_an_export_without_a_run_is_refused(
    cross_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantizer = RankerQuantizer.from_pretrained(cross_encoder)
    monkeypatch.setattr(memory, "memory_of", lambda device: Memory(1000, 1000))
    with pytest.raises(DeviceError, match="Export with quantization needs more memory"):
        quantizer.quantize(tmp_path / "int8")
    assert not (tmp_path / "int8").exists()
    quantizer.quantize(tmp_path / "packed", WeightQuantizationConfig())  # makes no graph


def test_a_student_of_unknown_size_is_refused_for_what_is_certain_alone(
    run_inputs: Path, cross_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, MemoryEstimate] = {}
    monkeypatch.setattr("hfcompress.steps.memory.require_memory", lambda each, device: found.update({each.step: each}))
    settings = recipe_for(run_inputs)
    settings["teacher"] = {"model": str(cross_encoder), "max_length": 32}
    settings["prune"] = {"target_macs": 0.5, "vocabulary": {}}
    check(Recipe.model_validate(settings))
    size = ModelSize.of(load_config(str(cross_encoder)))
    certain = size.pruned(0.0, whole_vocabulary=False)
    assert certain.parameters == size.parameters - size.embedding - size.encoder
    recovery, export = found["Recovery"], found["Export with quantization"]
    assert recovery.least == 16 * certain.parameters and export.least == 8 * certain.parameters
    half = size.pruned(0.5, whole_vocabulary=False)
    assert recovery.peak > 16 * half.parameters and export.peak == export_memory(half).peak
    settings["prune"]["stages"] = 2  # the vocabulary is cut in the last
    check(Recipe.model_validate(settings))
    assert found["Recovery"].least == recovery.least + 16 * size.embedding and found[export.step] == export
    settings["quantize"] = {"artifacts": [{"runtime": "torch", "bits": 4}]}
    settings["prune"] = {"vocabulary": {}}
    found.clear()
    check(Recipe.model_validate(settings))
    assert [*found] == ["Recovery"] and found["Recovery"].least == 16 * size.pruned(1.0, False).parameters


def test_the_share_of_the_encoder_that_is_kept() -> None:
    size = ModelSize.of(make_pico().config)

    def share(**settings: object) -> float:
        return kept_share(PruneStep.of(settings), size)

    assert share(target_macs=0.3) == 0.3 and share(target_speedup=4) == 0.25 and share(target_latency_ms=3) == 1
    assert share(heads=0.5, ffn=0.25) == 0.5 and share(ffn=0.25) == 1 and share(layers=[0, 1], spread="uniform") == 0.5
    parameters = size.pruned(0.5, True).parameters / size.parameters
    assert share(target_parameters=parameters) == pytest.approx(0.5, abs=1e-3)
    assert export_memory(size.pruned(0.5, True)).peak < export_memory(size).peak
