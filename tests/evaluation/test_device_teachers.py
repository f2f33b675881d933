"""A torch artifact in 16 bits is compared with the teacher on its own device, in fp32 and in 16 bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import make_pico
from pretend_device import NAME, pretend_device
from report_samples import example_report
from transformers import BertTokenizerFast

from hfcompress.card import render
from hfcompress.cli.tables import verdict
from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError, DeviceError
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.device_teachers import missing_teachers
from hfcompress.evaluation.explain import primary_artifact
from hfcompress.evaluation.results import evaluate_candidates
from hfcompress.evaluation.systems import placed_systems
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.pruning.costs.latency import Deployment
from hfcompress.pruning.find_plans import deployment_of
from hfcompress.rankers.base import RankerOptions
from hfcompress.recipe import EvaluateStep, HalfPrecision, OnnxRuntimeInt8, PruneStep, QuantizeStep, Recipe
from hfcompress.steps.evaluate import candidates_of, deployable

GPU = "cuda:0"
STEP = EvaluateStep(cold_start=False, single_thread_queries=0, latency_queries=1, rounds=2, speed_queries=4, threads=1)


def recipe(*artifacts: dict[str, object]) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "halves",
            "data": {"sets": ["words"]},
            "teacher": {"model": "teacher"},
            "prune": {"heads": 0.5},
            "quantize": {"artifacts": list(artifacts)},
        }
    )


def places(*artifacts: dict[str, object]) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]]]:
    found = candidates_of(recipe(*artifacts), "teacher", Path("student"), GPU)
    others = missing_teachers(found)
    return [(each.name, each.device, each.precision) for each in found], [(each.device, each.dtype) for each in others]


def test_what_is_timed_where() -> None:
    fp16, bf16 = ({"runtime": "torch", "dtype": name} for name in ("float16", "bfloat16"))
    int8 = {"runtime": "onnxruntime", "mode": "dynamic"}
    graph = ("student-onnxruntime-int8-dynamic", "cpu", "int8-dynamic")
    assert places(int8) == ([("teacher", "cpu", "fp32"), ("student-torch", "cpu", "fp32"), graph], [])
    assert places(fp16, bf16) == (
        [
            ("teacher", GPU, "fp32"),
            ("student-torch", GPU, "fp32"),
            ("student-torch-fp16", GPU, "fp16"),
            ("student-torch-bf16", GPU, "bf16"),
        ],
        [(GPU, "float16"), (GPU, "bfloat16")],
    )
    both, others = places(int8, fp16)
    assert both[0][1] == both[1][1] == "cpu" and both[3] == ("student-torch-fp16", GPU, "fp16")
    assert others == [(GPU, "float32"), (GPU, "float16")]
    assert deployable(candidates_of(recipe(int8, fp16), "teacher", Path("student"), GPU)) == [graph[0], both[3][0]]


def test_speeds_of_two_devices_make_no_ratio(
    word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed in (("teacher", 0), ("student", 1)):
        save_checkpoint(
            tmp_path / name,
            make_pico(seed=seed, num_hidden_layers=1),
            tokenizer,
            "torch.nn.modules.linear.Identity",
            32,
        )
    waited: list[str] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: waited.append(str(device)))
    with pretend_device() as device:
        teacher = Candidate.teacher(str(tmp_path / "teacher"), "teacher")
        student = Candidate.student(tmp_path / "student")
        half = student.in_precision("bfloat16", str(device))
        first, exact, found = (
            each.artifact
            for each in evaluate_candidates(
                [teacher, student, half], word_data, STEP, max_length=32, progress=False, device=str(device)
            )
        )
    assert waited and set(waited) == {f"{NAME}:0"}
    assert (first.device, exact.device, found.device) == ("cpu", "cpu", f"{NAME}:0")
    assert not exact.device_teachers and [each.precision for each in found.device_teachers] == ["fp32", "bf16"]
    assert found.speedup == found.device_teachers[0].speedup != found.device_teachers[1].speedup
    assert found.baseline(first) == (found.device_teachers[0].latency, found.device)
    assert found.stability is not None and found.stability.rank_correlation is not None
    assert found.stability.rank_correlation > 0.9  # with the student in fp32

    report = example_report()
    old = render(report)
    chosen = primary_artifact(report.artifacts, report.sequence)
    assert chosen is not None
    kept = {"name": chosen.name, "delta": chosen.delta, "per_query": chosen.per_query}
    moved = found.model_copy(update=kept)
    changed = report.model_copy(update={"artifacts": [moved], "sequence": [chosen.name]})
    card = render(changed)
    assert f"`{chosen.name}` on {NAME}:0" in card and f"| {NAME}:0 | teacher, bf16 PyTorch |" in card
    assert "on the same device" in card and 'dtype="bfloat16"' in card
    assert "on the same device" not in old and "Device" not in old
    assert f"in fp32 on {NAME}:0" in verdict(changed) and "in fp32 on" not in verdict(report)


def test_time_is_measured_as_deployed() -> None:
    step, options = PruneStep(target_speedup=2), RankerOptions(device=GPU)
    half, int8 = HalfPrecision(dtype="float16"), OnnxRuntimeInt8(mode="dynamic")
    found = deployment_of(step, [half, int8], options, 20)
    assert (found.runtime, found.dtype, found.options.device) == ("torch", "float16", GPU)
    found = deployment_of(step, [int8, half], options, 20)
    assert (found.runtime, found.options.device, found.place) == ("onnxruntime", "cpu", {})
    found = deployment_of(PruneStep(target_speedup=2, runtime="torch"), [], options, 20)
    assert (found.runtime, found.dtype, found.options.device) == ("torch", "float32", GPU)
    with pytest.raises(DeviceError, match="precision"):
        Deployment("onnxruntime", dtype="float16")
    assert Deployment().place == {} and Deployment(dtype="bfloat16").place == {"device": "cpu", "dtype": "bfloat16"}


def test_artifacts_of_a_recipe_keep_their_kinds() -> None:
    step = QuantizeStep.model_validate(
        {"artifacts": [{"runtime": "torch", "bits": 4}, {"runtime": "torch", "dtype": "float16"}]}
    )
    assert [type(each).__name__ for each in step.artifacts] == ["PackedWeights", "HalfPrecision"]
    assert QuantizeStep.model_validate(step.model_dump(mode="json")) == step
    with pytest.raises(ValueError, match="more than one for torch float16"):
        QuantizeStep.model_validate({"artifacts": [{"runtime": "torch", "dtype": "float16"}] * 2})
    with pytest.raises(ValueError, match=r"float16.*or.*bfloat16"):
        QuantizeStep.model_validate({"artifacts": [{"runtime": "torch", "dtype": "int8"}]})


def test_models_by_name_are_compared_on_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfcompress.evaluation.systems.torch_device", lambda name: torch.device(GPU))
    monkeypatch.setattr("hfcompress.rankers.load.torch_device", lambda name: torch.device(GPU))
    model, other = (Candidate(name, name, name, "torch", "fp32") for name in ("model", "baseline"))
    graph = Candidate("graph", "graph", "onnx/model.onnx", "onnxruntime", "fp32")

    def devices(*systems: Candidate, **settings: object) -> list[str]:
        return [each.device for each in placed_systems(systems, **settings)]  # type: ignore[arg-type, union-attr]

    assert devices(other, model) == [GPU, GPU] and devices(model) == [GPU]
    assert devices(other, graph) == ["cpu", "cpu"] and devices(graph, model) == ["cpu", "cpu"]
    assert devices(other, graph, device="cuda") == [GPU, GPU]  # by the CUDA provider
    assert devices(other, graph, providers=["CUDAExecutionProvider"]) == [GPU, GPU]
    half = placed_systems([other, model], dtype="float16")
    assert [each.precision for each in half] == ["fp32", "fp16"]  # type: ignore[union-attr]
    with pytest.raises(DeviceError, match="torch has no execution providers"):
        placed_systems([model], providers=["CPUExecutionProvider"])
    with pytest.raises((DeviceError, DataError), match="precision"):
        placed_systems([graph], dtype="float16")
