"""A run with a torch artifact in 16 bits, and devices that are refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from run_samples import recipe_for
from typer.testing import CliRunner

from hfcompress.card import render
from hfcompress.cli import app
from hfcompress.errors import DeviceError, RecipeError
from hfcompress.pipeline import run
from hfcompress.recipe import Recipe
from hfcompress.report.report import RunReport


@pytest.mark.soak
def test_a_run_with_a_model_in_16_bits(run_inputs: Path, tmp_path: Path) -> None:
    settings = recipe_for(run_inputs)
    settings["device"] = "cpu"
    settings["teacher"]["train"] = None
    settings["recover"] |= {"features": {"hidden": 1.0}}
    del settings["prune"]["vocabulary"]
    del settings["prune"]["weights"]
    settings["quantize"]["artifacts"] = [
        {"runtime": "torch", "dtype": "bfloat16"},
        {"runtime": "onnxruntime", "mode": "dynamic"},
    ]
    settings["evaluate"] |= {"min_rank_correlation": 0.0}
    report = run(Recipe.model_validate(settings), tmp_path / "out", progress=False)
    half = next(each for each in report.artifacts if each.precision == "bf16")
    assert (half.name, half.path, half.device) == ("student-torch-bf16", "model.safetensors", "cpu")
    assert [each.precision for each in half.device_teachers] == ["bf16"] and half.stability is not None
    assert half.stability.rank_correlation is not None and half.stability.rank_correlation > 0.8
    assert RunReport.load(tmp_path / "out") == report and report.machine.device == "cpu"
    assert "teacher, bf16 PyTorch" in (card := render(report)) and 'dtype="bfloat16"' in card


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("verb", ["run", "compress", "prune", "evaluate", "compare", "rank", "mine"])
def test_a_missing_device_is_refused_early(verb: str, run_inputs: Path, tmp_path: Path) -> None:
    model, data, out = (str(path) for path in (run_inputs / "encoder", run_inputs / "words", tmp_path / "out"))
    recipe, documents = tmp_path / "recipe.yaml", tmp_path / "documents.txt"
    recipe.write_text(yaml.safe_dump(recipe_for(run_inputs)))
    documents.write_text("ba de\n")
    arguments = {
        "run": ["run", str(recipe), "--out", out],
        "compress": ["compress", model, "--data", data, "--out", out],
        "prune": ["prune", model, "--data", data, "--out", out, "--target-macs", "0.5"],
        "evaluate": ["evaluate", model, "--data", data],
        "compare": ["compare", model, model, "--data", data],
        "rank": ["rank", model, "--query", "ba", "--docs", str(documents)],
        "mine": ["data", "mine", data, "--model", model, "--out", out],
    }[verb]
    done = CliRunner().invoke(app, [*arguments, "--device", "cuda:7"])
    assert isinstance(done.exception, DeviceError), done
    assert "cuda:7" in str(done.exception) and "cpu" in done.exception.expected
    assert not Path(out).exists()


def test_a_recipe_names_a_device() -> None:
    minimal = "name: x\ndata: {sets: [a]}\nteacher: {model: m}\n"
    assert Recipe.from_yaml(minimal).device == "auto"
    assert Recipe.from_yaml(f"{minimal}device: cuda:1\n").device == "cuda:1"
    assert Recipe.from_yaml(minimal, ["device=mps"]).device == "mps"
    with pytest.raises(RecipeError, match="device"):
        Recipe.from_yaml(f"{minimal}device: gpu\n")
