"""Quantization settings as Optimum-style configs: saved and reloaded like any Optimum config."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, get_args

from optimum.configuration_utils import BaseConfig

from hfcompress.errors import DataError, RecipeError
from hfcompress.machine import SATURATING_TARGETS, cpu_target
from hfcompress.packing import Codec
from hfcompress.recipe import OpenVinoInt8, PackedWeights
from hfcompress.recipe.quantize import ArtifactStep, CalibrationMethod, CpuTarget, PackingMethod, PackingScope

CPU_TARGETS: tuple[str, ...] = get_args(CpuTarget)[1:]
METHODS: tuple[str, ...] = get_args(CalibrationMethod)
PACKING_METHODS: tuple[str, ...] = get_args(PackingMethod)
SCOPES: tuple[str, ...] = get_args(PackingScope)


class QuantizationConfig(BaseConfig):
    """Base of all settings of quantization.

    Attributes:
        runtime: Where the result runs.
        mode: `dynamic` or `static` for int8; `weights` where activations stay in fp32.
    """

    CONFIG_NAME = "quantization_config.json"
    FULL_CONFIGURATION_FILE = "quantization_config.json"

    runtime = ""
    mode = ""

    @property
    def precision(self) -> str:
        """Name of the precision in reports."""
        return f"int8-{self.mode}"


class DynamicQuantizationConfig(QuantizationConfig):
    """Dynamic int8 for ONNX Runtime: activation ranges are taken from each batch.

    Args:
        per_channel: One weight scale for each output channel.
        reduce_range: 7-bit weights, for CPUs without VNNI; None decides by the CPU.
        **kwargs: As for Optimum's `BaseConfig`.
    """

    model_type = "hfcompress-onnxruntime-dynamic"
    runtime = "onnxruntime"
    mode = "dynamic"

    def __init__(self, per_channel: bool = True, reduce_range: bool | None = None, **kwargs: Any):
        self.per_channel = per_channel
        self.reduce_range = reduce_range
        super().__init__(**kwargs)


class StaticQuantizationConfig(QuantizationConfig):
    """Static int8 for ONNX Runtime: activation ranges are measured on calibration pairs.

    Args:
        per_channel: One weight scale for each output channel.
        reduce_range: 7-bit weights, for CPUs without VNNI; None decides by the CPU.
        activation_type: `uint8` (the U8S8 of ONNX Runtime, for x86) or `int8` (S8S8, for ARM); None decides by the CPU.
        calibration: `minmax` keeps every value in range, `percentile` and `entropy` cut outliers off; see
            `hfcompress.quantization.calibration`.
        percentile: Percentage of magnitudes that `percentile` keeps in range.
        **kwargs: As for Optimum's `BaseConfig`.

    Raises:
        RecipeError: A setting has another value than these.
    """

    model_type = "hfcompress-onnxruntime-static"
    runtime = "onnxruntime"
    mode = "static"

    def __init__(
        self,
        per_channel: bool = True,
        reduce_range: bool | None = None,
        activation_type: str | None = None,
        calibration: str = "minmax",
        percentile: float = 99.999,
        **kwargs: Any,
    ):
        _one_of("activation_type", activation_type, (None, "uint8", "int8"))
        _one_of("calibration", calibration, METHODS)
        if not 50 < percentile <= 100:
            raise RecipeError(
                "The percentile does not fit",
                value=percentile,
                expected="a percentage above 50, at most 100",
                remedy="correct percentile",
            )
        self.per_channel = per_channel
        self.reduce_range = reduce_range
        self.activation_type = activation_type
        self.calibration = calibration
        self.percentile = percentile
        super().__init__(**kwargs)


class MixedPrecisionConfig(StaticQuantizationConfig):
    """int8 for ONNX Runtime in which the linear layers of the encoder that move the ranking most stay in fp32.

    Products of two activations, as attention makes them, stay in fp32 too.

    Args:
        max_loss: Largest calibration loss: mean divergence of the softmax over a query's documents from that of the
            model in fp32. As few layers stay in fp32 as it takes.
        mode: `dynamic` or `static`.
        fp32_modules: Names of the linear layers that stay in fp32; None until they are chosen.
        sensitivity: Loss with one linear layer in int8 alone, by its name; empty where int8 everywhere keeps the bound.
        figures: `loss` with the choice, `loss_int8` with no layer in fp32, and the number of `modules` to choose from.
        **kwargs: As for `StaticQuantizationConfig`; `activation_type` and `calibration` count in static int8 only.

    Raises:
        RecipeError: A setting does not fit.
    """

    model_type = "hfcompress-onnxruntime-mixed"

    def __init__(
        self,
        max_loss: float = 0.01,
        mode: str = "dynamic",
        fp32_modules: list[str] | None = None,
        sensitivity: dict[str, float] | None = None,
        figures: dict[str, float] | None = None,
        **kwargs: Any,
    ):
        _one_of("mode", mode, ("dynamic", "static"))
        if not max_loss > 0:
            raise RecipeError(
                "The bound on the calibration loss does not fit",
                value=max_loss,
                expected="a number above 0",
                remedy="correct max_loss",
            )
        super().__init__(**kwargs)
        self.max_loss = max_loss
        self.mode = mode
        self.fp32_modules = fp32_modules
        self.sensitivity = sensitivity or {}
        self.figures = figures or {}

    @property
    def precision(self) -> str:
        """Name of the precision in reports."""
        return f"int8-{self.mode}-mixed"

    def with_choice(
        self, fp32_modules: list[str], sensitivity: dict[str, float], figures: dict[str, float]
    ) -> MixedPrecisionConfig:
        """A copy that says what was chosen, and on which figures."""
        chosen = copy.deepcopy(self)
        chosen.fp32_modules, chosen.sensitivity, chosen.figures = fp32_modules, sensitivity, figures
        return chosen


class OpenVINOQuantizationConfig(QuantizationConfig):
    """Static int8 for OpenVINO by NNCF with its transformer preset.

    Args:
        smooth_quant_alpha: Share of activation outliers moved into weights; -1 turns SmoothQuant off.
        **kwargs: As for Optimum's `BaseConfig`.
    """

    model_type = "hfcompress-openvino-static"
    runtime = "openvino"
    mode = "static"

    def __init__(self, smooth_quant_alpha: float = 0.95, **kwargs: Any):
        self.smooth_quant_alpha = smooth_quant_alpha
        super().__init__(**kwargs)


class WeightQuantizationConfig(QuantizationConfig):
    """Weights of few bits, stored packed and dequantized to fp32 when they are loaded.

    That saves disk and download. What runs is the model in fp32 PyTorch, in its time and memory.

    Args:
        method: `truncation` to fixed point, or `sign`; see `hfcompress.packing.Codec`.
        bits: Bits of a truncated weight, 4 to 8; `sign` always has 1.
        group_size: Neighbouring weights of a row that share a scale; None for one scale a channel.
        scope: `embeddings` packs the word embeddings; `all` these and the linear layers of the encoder. The rest, such
            as biases, norms and the head, stays in fp32.
        **kwargs: As for Optimum's `BaseConfig`.

    Raises:
        RecipeError: A setting has another value than these.
    """

    model_type = "hfcompress-packed-weights"
    runtime = "torch"
    mode = "weights"

    def __init__(
        self,
        method: str = "truncation",
        bits: int = 8,
        group_size: int | None = None,
        scope: str = "embeddings",
        **kwargs: Any,
    ):
        _one_of("method", method, PACKING_METHODS)
        _one_of("scope", scope, SCOPES)
        if method == "truncation":
            _one_of("number of bits", bits, (4, 5, 6, 7, 8))
        if group_size is not None and group_size < 1:
            raise RecipeError(
                "The group of weights that share a scale does not fit",
                value=group_size,
                expected="1 weight or more, or None for one scale a channel",
                remedy="correct group_size; 64 is usual",
            )
        self.method = method
        self.bits = 1 if method == "sign" else bits
        self.group_size = group_size
        self.scope = scope
        super().__init__(**kwargs)

    @property
    def stored_as(self) -> str:
        """Name of the type of a packed weight: `int4` to `int8`, or `sign`."""
        return "sign" if self.method == "sign" else f"int{self.bits}"

    @property
    def precision(self) -> str:
        """Name of the precision in reports."""
        return f"{self.stored_as}-weights"

    @property
    def codec(self) -> Codec:
        """How each matrix is rounded and stored."""
        return Codec(self.method, self.bits, self.group_size)


def config_for(
    target: str = "auto",
    mode: str = "dynamic",
    per_channel: bool = True,
    calibration: str = "minmax",
    percentile: float = 99.999,
) -> QuantizationConfig:
    """The int8 settings for a kind of hardware.

    | target | activations, weights | `reduce_range` |
    | --- | --- | --- |
    | `avx2`, `avx512` | U8S8 | yes: their instructions saturate with 8-bit weights |
    | `avx512_vnni` | U8S8 | no |
    | `arm64` | S8S8 | no |

    Args:
        target: `avx2`, `avx512`, `avx512_vnni` or `arm64` for ONNX Runtime; `auto` for the one that this CPU is; or
            `openvino`, which chooses by itself when it loads a graph.
        mode: `dynamic` or `static`, for ONNX Runtime; activations of dynamic int8 are always unsigned.
        per_channel: One weight scale for each output channel.
        calibration: How static ranges are found, see `StaticQuantizationConfig`.
        percentile: See there.

    Raises:
        RecipeError: There is no such target, mode or way of calibration.
    """
    _one_of("target", target, ("auto", *CPU_TARGETS, "openvino"))
    _one_of("mode", mode, ("dynamic", "static"))
    if target == "openvino":
        return OpenVINOQuantizationConfig()
    cpu = cpu_target() if target == "auto" else target
    if mode == "dynamic":
        return DynamicQuantizationConfig(per_channel, saturates(cpu))
    return StaticQuantizationConfig(per_channel, saturates(cpu), activation_type(cpu), calibration, percentile)


def saturates(cpu: str) -> bool:
    """Whether a kind of CPU needs weights of 7 bits."""
    return cpu in SATURATING_TARGETS


def activation_type(cpu: str) -> str:
    """Type of static int8 activations that is fast on a kind of CPU."""
    return "int8" if cpu == "arm64" else "uint8"


def weights_from_recipe(step: PackedWeights) -> WeightQuantizationConfig:
    """The config of an artefact with packed weights."""
    return WeightQuantizationConfig(step.method, step.bits, step.group_size, step.scope)


def config_from_recipe(step: ArtifactStep) -> QuantizationConfig:
    """The config of one artefact of a recipe; what a recipe leaves to the CPU is left to the CPU."""
    if isinstance(step, PackedWeights):
        return weights_from_recipe(step)
    if isinstance(step, OpenVinoInt8):
        return OpenVINOQuantizationConfig(step.smooth_quant_alpha)
    cpu = None if step.target == "auto" else step.target
    reduce_range = (saturates(cpu) if cpu else None) if step.reduce_range == "auto" else step.reduce_range
    if step.mode == "dynamic" and step.max_loss is None:
        return DynamicQuantizationConfig(step.per_channel, reduce_range)
    settings: dict[str, Any] = {
        "per_channel": step.per_channel,
        "reduce_range": reduce_range,
        "activation_type": activation_type(cpu) if cpu else None,
        "calibration": step.calibration,
        "percentile": step.percentile,
    }
    if step.max_loss is not None:
        return MixedPrecisionConfig(step.max_loss, step.mode, **settings)
    return StaticQuantizationConfig(**settings)


def require_calibration(config: QuantizationConfig, calibration: Sequence[Any]) -> None:
    """Check that there is something to measure static ranges on.

    Raises:
        DataError: The config is static, and there is nothing.
    """
    if config.mode == "static" and not len(calibration):
        raise DataError(
            "Static int8 has no calibration pairs",
            value=f"{config.precision} for {config.runtime}",
            expected="pairs like those to be ranked, on which activation ranges are measured; 128 are plenty",
            remedy="give calibration pairs, or use dynamic int8, which needs none",
        )


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise RecipeError(
            f"There is no such {name}",
            value=value,
            expected=" or ".join(str(each) for each in allowed),
            remedy=f"correct {name}",
        )
