"""Quantization configs: round trips, targets, invalid values, and configs from recipes."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from hfcompress.errors import RecipeError
from hfcompress.quantization.config import (
    CPU_TARGETS,
    DynamicQuantizationConfig,
    MixedPrecisionConfig,
    OpenVINOQuantizationConfig,
    QuantizationConfig,
    StaticQuantizationConfig,
    WeightQuantizationConfig,
    config_for,
    config_from_recipe,
)
from hfcompress.recipe import ArtifactStep, OnnxRuntimeInt8, OpenVinoInt8, PackedWeights
from hfcompress.utils import machine


@pytest.mark.parametrize(
    "config",
    [
        DynamicQuantizationConfig(per_channel=False, reduce_range=True),
        StaticQuantizationConfig(reduce_range=False),
        StaticQuantizationConfig(activation_type="int8", calibration="percentile", percentile=99.5),
        OpenVINOQuantizationConfig(smooth_quant_alpha=0.5),
        *(config_for(target, mode) for target in (*CPU_TARGETS, "auto") for mode in ("dynamic", "static")),
        config_for("openvino"),
        WeightQuantizationConfig(),
        WeightQuantizationConfig("round", 5, 32, "all"),
        WeightQuantizationConfig("sign", group_size=64),
        MixedPrecisionConfig(0.5, "static", ["layer.0"], {"layer.0": 0.25}, {"loss": 0.125}, calibration="entropy"),
    ],
    ids=str,
)
def test_configs_round_trip(config: QuantizationConfig, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    reloaded = type(config).from_pretrained(tmp_path)
    assert reloaded.to_dict() == config.to_dict()
    assert (tmp_path / "quantization_config.json").is_file()


@pytest.mark.parametrize(
    ("target", "reduced", "activations"),
    [("avx2", True, "uint8"), ("avx512", True, "uint8"), ("avx512_vnni", False, "uint8"), ("arm64", False, "int8")],
)
def test_targets(target: str, reduced: bool, activations: str) -> None:
    static = config_for(target, "static", per_channel=False, calibration="entropy")
    assert isinstance(static, StaticQuantizationConfig)
    assert (static.reduce_range, static.activation_type) == (reduced, activations)
    assert (static.per_channel, static.calibration) == (False, "entropy")
    dynamic = config_for(target)
    assert isinstance(dynamic, DynamicQuantizationConfig) and dynamic.reduce_range is reduced and dynamic.per_channel


def test_openvino_target() -> None:
    assert isinstance(config_for("openvino"), OpenVINOQuantizationConfig)


@pytest.mark.parametrize(
    ("architecture", "flags", "target"),
    [
        ("x86_64", {"avx2"}, "avx2"),
        ("AMD64", set(), "avx2"),
        ("x86_64", {"avx2", "avx512_f"}, "avx512"),
        ("x86_64", {"avx2", "avx512_f", "avx512_vnni"}, "avx512_vnni"),
        ("x86_64", {"avx2", "avx_vnni"}, "avx512_vnni"),
        ("aarch64", set(), "arm64"),
        ("arm64", set(), "arm64"),
    ],
)
def test_auto_is_the_target_that_this_cpu_is(
    architecture: str, flags: set[str], target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.platform, "machine", lambda: architecture)
    monkeypatch.setattr(machine, "cpu_flags", lambda: sorted(flags))
    assert config_for("auto", "static").to_dict() == config_for(target, "static").to_dict()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: config_for("sse4"), "sse4"),
        (lambda: config_for("avx2", "statisch"), "statisch"),
        (lambda: StaticQuantizationConfig(calibration="mean"), "'minmax', 'percentile' or 'entropy'"),
        (lambda: StaticQuantizationConfig(activation_type="int4"), "int4"),
        (lambda: StaticQuantizationConfig(percentile=0.999), "greater than 50"),
        (lambda: WeightQuantizationConfig("ternary"), "'round' or 'sign'"),
        (lambda: WeightQuantizationConfig(bits=3), "bits.*greater than or equal to 4"),
        (lambda: WeightQuantizationConfig(bits=9), "bits.*less than or equal to 8"),
        (lambda: WeightQuantizationConfig(group_size=0), "group_size"),
        (lambda: WeightQuantizationConfig(scope="head"), "'embeddings' or 'all'"),
    ],
)
def test_settings_that_do_not_exist_are_refused(make: object, named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        make()  # type: ignore[operator]


def test_configs_from_recipes() -> None:
    dynamic = config_from_recipe(OnnxRuntimeInt8(mode="dynamic", per_channel=False))
    assert isinstance(dynamic, DynamicQuantizationConfig)
    assert (dynamic.per_channel, dynamic.reduce_range, dynamic.precision) == (False, None, "int8-dynamic")
    static = config_from_recipe(OnnxRuntimeInt8(mode="static", reduce_range=True))
    assert isinstance(static, StaticQuantizationConfig)
    assert (static.reduce_range, static.activation_type, static.calibration) == (True, None, "minmax")
    openvino = config_from_recipe(OpenVinoInt8(smooth_quant_alpha=-1))
    assert isinstance(openvino, OpenVINOQuantizationConfig) and openvino.smooth_quant_alpha == -1


@pytest.mark.parametrize("mode", ["dynamic", "static"])
@pytest.mark.parametrize("target", CPU_TARGETS)
def test_a_target_means_the_same_in_recipes(target: str, mode: str) -> None:
    step = OnnxRuntimeInt8(mode=mode, target=target)  # type: ignore[arg-type]
    assert config_from_recipe(step).to_dict() == config_for(target, mode).to_dict()
    step = step.model_copy(update={"reduce_range": False})
    assert config_from_recipe(step).reduce_range is False  # an explicit setting overrides the target


def test_calibration_from_recipes() -> None:
    step = OnnxRuntimeInt8(mode="static", calibration="percentile", percentile=99.9)
    config = config_from_recipe(step)
    assert isinstance(config, StaticQuantizationConfig)
    assert (config.calibration, config.percentile) == ("percentile", 99.9)
    with pytest.raises(ValidationError, match="mode: static"):
        OnnxRuntimeInt8(mode="dynamic", calibration="entropy")


@pytest.mark.parametrize(
    ("step", "config"),
    [
        (OnnxRuntimeInt8(mode="dynamic"), DynamicQuantizationConfig()),
        (OnnxRuntimeInt8(mode="static"), StaticQuantizationConfig()),
        (OnnxRuntimeInt8(mode="dynamic", max_loss=0.01), MixedPrecisionConfig()),
        (OpenVinoInt8(), OpenVINOQuantizationConfig()),
        (PackedWeights(), WeightQuantizationConfig()),
    ],
    ids=lambda each: type(each).__name__,
)
def test_defaults_are_those_of_recipes(step: ArtifactStep, config: QuantizationConfig) -> None:
    assert config_from_recipe(step).to_dict() == config.to_dict()


def test_truncation_is_an_alias_of_round_also_in_files(tmp_path: Path) -> None:
    config = WeightQuantizationConfig("round", 5)
    assert WeightQuantizationConfig("truncation", 5).to_dict() == config.to_dict()
    config.save_pretrained(tmp_path)
    path = tmp_path / "quantization_config.json"
    path.write_text(path.read_text().replace('"round"', '"truncation"'))  # as earlier versions wrote it
    assert WeightQuantizationConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_packed_weights_from_recipes() -> None:
    config = config_from_recipe(PackedWeights(bits=5, group_size=32, scope="all"))
    assert config.to_dict() == WeightQuantizationConfig("round", 5, 32, "all").to_dict()
    assert (config.precision, config.runtime, config.mode) == ("int5-weights", "torch", "weights")
    sign = config_from_recipe(PackedWeights.model_validate(PackedWeights(method="sign").model_dump()))
    assert (sign.precision, sign.bits) == ("sign-weights", 1)
    with pytest.raises(ValidationError, match="sign keeps one bit"):
        PackedWeights(method="sign", bits=4)
