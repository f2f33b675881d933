"""Settings that do not exist are refused by every config of the package, with the name of the nearest one that does."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import make_pico
from optimum.configuration_utils import BaseConfig
from pydantic import BaseModel, ValidationError
from report_samples import example_report
from transformers import PretrainedConfig, Trainer, TrainerCallback, TrainingArguments

import hfcompress
from hfcompress.data.draft import ReadOptions
from hfcompress.errors import ModelError, OutputError, PlanError, RecipeError
from hfcompress.evaluation.ranking_metric import RankingMetric
from hfcompress.models.plan import PruningPlan
from hfcompress.optimum_config import RankerCompressionConfig, StrictConfig
from hfcompress.quantization.config import OpenVINOQuantizationConfig, QuantizationConfig, StaticQuantizationConfig
from hfcompress.rankers.base import RankerOptions
from hfcompress.recipe import OnnxRuntimeInt8, OpenVinoInt8, PruneStep, Recipe
from hfcompress.report.report import REPORT_FILE, RunReport
from hfcompress.training.arguments import RankingTrainingArguments
from hfcompress.training.gradual import GradualPruningCallback
from hfcompress.training.trainer import RankingTrainer
from hfcompress.utils.settings import Closed, nearest, refuse_unknown


def classes() -> Iterator[type]:
    """Every class that a module of the package defines."""
    for found in pkgutil.walk_packages(hfcompress.__path__, "hfcompress."):
        if ".optimum_namespace" not in found.name and not found.name.endswith("__main__"):
            module = importlib.import_module(found.name)
            yield from (
                each for each in vars(module).values() if isinstance(each, type) and each.__module__ == found.name
            )


ALL = sorted(set(classes()), key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
# Bodies of requests and responses of hfcompress.serve ignore unknown fields, as the servers do whose clients send them.
MODELS = [
    kind
    for kind in ALL
    if issubclass(kind, BaseModel) and kind.model_fields and not kind.__module__.startswith("hfcompress.serve.")
]
CONFIGS = [kind for kind in ALL if issubclass(kind, BaseConfig) and kind not in (StrictConfig, QuantizationConfig)]
PLAIN = [
    kind
    for kind in ALL
    if (dataclasses.is_dataclass(kind) or issubclass(kind, Trainer | TrainerCallback))
    and not issubclass(kind, BaseConfig)
]


def name_of(kind: type) -> str:
    return kind.__name__


def misspelt(name: str) -> str:
    return f"{name[:-1]}{name[-1] * 2}"


def test_the_configs_are_found() -> None:
    assert {Recipe, PruneStep, RunReport, OnnxRuntimeInt8} <= set(MODELS) and len(MODELS) > 40
    assert {StaticQuantizationConfig, RankerCompressionConfig, OpenVINOQuantizationConfig} <= set(CONFIGS)
    assert len(CONFIGS) == 6
    known = {ReadOptions, RankerOptions, RankingTrainingArguments, RankingTrainer, GradualPruningCallback}
    assert known <= set(PLAIN) and len(PLAIN) > 40


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_models_name_the_nearest_setting(model: type[BaseModel]) -> None:
    assert issubclass(model, Closed)
    name = max(model.model_fields, key=len)
    for validate in (
        model.model_validate,
        lambda given: model(**given),
        lambda given: model.model_validate_json(json.dumps(given)),
    ):
        with pytest.raises(ValidationError) as error:
            validate({misspelt(name): None})
        (fault,) = (each for each in error.value.errors() if each["loc"] == (misspelt(name),))
        assert fault["msg"] == f"Extra inputs are not permitted: did you mean {name!r}?"


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_configs_of_optimum_name_the_nearest_setting(config: type[StrictConfig], tmp_path: Path) -> None:
    name = max(config.settings(), key=len)
    wrong = misspelt(name)
    config().save_pretrained(tmp_path)
    path = tmp_path / config.CONFIG_NAME
    saved = json.loads(path.read_text())

    def written(settings: dict[str, Any]) -> Any:
        path.write_text(json.dumps(settings))
        return config.from_pretrained(tmp_path)

    message = f"{wrong}.*did you mean '{name}'"
    for make in (
        lambda: config(**{wrong: None}),
        lambda: config.from_dict({wrong: None}),
        lambda: config.from_dict(saved, **{wrong: None}),
        lambda: config.from_dict({**config().to_dict(), wrong: None}),
        lambda: config.from_pretrained(tmp_path, **{wrong: None}),
        lambda: config().update({wrong: None}),
        lambda: written({**saved, wrong: None}),
    ):
        with pytest.raises(RecipeError, match=message):
            make()
    with pytest.raises(RecipeError, match="no such setting"):
        config(num_labels=3)


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_configs_accept_what_every_version_writes(config: type[StrictConfig], tmp_path: Path) -> None:
    others = {"transformers_version": "4.40.0", "optimum_version": "1.20.0", "torch_dtype": None, "_name_or_path": ""}
    whole = {**PretrainedConfig().to_dict(), **config().to_dict(), **others, "_commit_hash": None, "return_dict": True}
    assert config.from_dict(whole).to_dict() == config().to_dict()
    path = tmp_path / config.CONFIG_NAME
    path.write_text(json.dumps(whole))
    assert config.from_pretrained(tmp_path).to_dict() == config().to_dict()
    loaded, unused = config.from_pretrained(tmp_path, return_unused_kwargs=True, foo=False)
    assert loaded.to_dict() == config().to_dict() and unused["foo"] is False


def test_settings_given_beside_a_file_are_checked_and_replace_it(tmp_path: Path) -> None:
    StaticQuantizationConfig(calibration="percentile").save_pretrained(tmp_path)
    assert StaticQuantizationConfig.from_pretrained(tmp_path, percentile=99.0).percentile == 99.0
    with pytest.raises(RecipeError, match="percentile"):
        StaticQuantizationConfig.from_pretrained(tmp_path, percentile=3.0)
    with pytest.raises(RecipeError, match="model_type"):
        OpenVINOQuantizationConfig.from_pretrained(tmp_path)
    config = StaticQuantizationConfig()
    config.update({"percentile": 99.5})
    assert config.percentile == 99.5
    with pytest.raises(RecipeError, match="percentile"):
        config.update({"percentile": 3.0})


@pytest.mark.parametrize("kind", PLAIN, ids=name_of)
def test_classes_name_the_argument_that_they_do_not_have(kind: type) -> None:
    arguments = list(inspect.signature(kind.__init__).parameters)[1:]  # type: ignore[misc]
    wrong = misspelt(max(arguments, key=len, default="setting"))
    with pytest.raises(TypeError, match=rf"{wrong}|takes no arguments"):
        kind(**{wrong: None})


def test_no_class_takes_any_keyword_without_a_check() -> None:
    checked = (StrictConfig, Trainer, BaseModel, TrainingArguments, RankingMetric)  # each is checked in a test here
    public = (kind for kind in ALL if not kind.__name__.startswith("_") and not getattr(kind, "_is_protocol", False))
    takers = {
        kind
        for kind in public
        if any(each.kind is each.VAR_KEYWORD for each in inspect.signature(kind.__init__).parameters.values())  # type: ignore[misc]
        and kind.__init__ is not object.__init__  # type: ignore[misc]
    }
    assert not {kind for kind in takers if not issubclass(kind, checked)}
    with pytest.raises(RecipeError, match=r"relevant_form.*did you mean 'relevant_from'"):
        RankingMetric(relevant_form=2)
    assert RankingMetric(seed=3).relevant_from == 1


def test_recipes_name_the_nearest_setting() -> None:
    text = "name: x\ndata: {sets: [api-search]}\nteacher: {model: y}\nprune: {hedas: 0.5, target_macz: 0.5}\nsede: 1\n"
    with pytest.raises(RecipeError) as error:
        Recipe.from_yaml(text, ["quantize.artifacts=[{runtime: openvino, smooth_quant_alfa: 0.5}]"])
    for wanted in (
        r"prune\.hedas.*'heads'",
        r"prune\.target_macz.*'target_macs'",
        "sede.*'seed'",
        "'smooth_quant_alpha'",
    ):
        assert re.search(wanted, str(error.value)), wanted


def test_reports_name_the_nearest_setting(tmp_path: Path) -> None:
    (tmp_path / REPORT_FILE).write_text(json.dumps({**example_report().model_dump(mode="json"), "max_lenght": 3}))
    with pytest.raises(OutputError, match=r"max_lenght.*did you mean 'max_length'"):
        RunReport.load(tmp_path)


def test_plans_name_the_nearest_setting() -> None:
    plan = PruningPlan.full(2, 2, 4).to_dict()
    with pytest.raises(PlanError, match=r"heds.*did you mean 'heads_of'|heds_of.*did you mean 'heads_of'"):
        PruningPlan.from_dict({**plan, "heds_of": 2})
    with pytest.raises(PlanError, match=r"fnn.*did you mean 'ffn'"):
        PruningPlan.from_dict({**plan, "layers": [{**layer, "fnn": ""} for layer in plan["layers"]]})


@pytest.mark.parametrize("alpha", [2.0, -1.5, "0.5", None, True])
def test_openvino_settings_have_one_range(alpha: Any) -> None:
    with pytest.raises(RecipeError, match="smooth_quant_alpha"):
        OpenVINOQuantizationConfig(smooth_quant_alpha=alpha)
    if not isinstance(alpha, str | bool | None):  # a recipe converts text of YAML, and null is the default
        with pytest.raises(ValidationError, match="smooth_quant_alpha"):
            OpenVinoInt8(smooth_quant_alpha=alpha)


@pytest.mark.parametrize("alpha", [-1, 0, 0.95, 1])
def test_openvino_settings_within_the_range(alpha: float) -> None:
    assert (
        OpenVINOQuantizationConfig(alpha).smooth_quant_alpha
        == OpenVinoInt8(smooth_quant_alpha=alpha).smooth_quant_alpha
    )


def test_the_loss_of_a_trainer_is_checked(tmp_path: Path) -> None:
    arguments = RankingTrainingArguments(output_dir=str(tmp_path))
    with pytest.raises(RecipeError, match=r"lisswise.*listwise or pointwise"):
        RankingTrainer(make_pico(), arguments, label_loss="lisswise")


def test_errors_list_all_settings_if_none_is_near() -> None:
    with pytest.raises(ModelError, match="zz: there are a, b"):
        refuse_unknown("X", ["zz"], ["a", "b"], ModelError)
    assert nearest("heds", ["heads", "ffn"]) == "did you mean 'heads'?"
