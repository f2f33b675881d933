"""Quantization settings as Optimum-style configs, which are saved and loaded like any Optimum config.

Settings that a recipe has too take their types, bounds and defaults from `hfcompress.recipe.quantize`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated, Any, get_args

from pydantic import TypeAdapter, ValidationError

from hfcompress.errors import DataError, RecipeError
from hfcompress.models.packing import Codec
from hfcompress.optimum_config import StrictConfig
from hfcompress.recipe import ArtifactStep, HalfPrecision, OnnxRuntimeInt8, OpenVinoInt8, PackedWeights
from hfcompress.recipe.base import Strict
from hfcompress.recipe.quantize import CpuTarget
from hfcompress.utils.machine import SATURATING_TARGETS, cpu_target

CPU_TARGETS: tuple[str, ...] = get_args(CpuTarget)[1:]
ONNXRUNTIME, OPENVINO, PACKED = OnnxRuntimeInt8(mode="dynamic"), OpenVinoInt8(), PackedWeights()  # the defaults


class QuantizationConfig(StrictConfig):
    """Base class of all quantization configs.

    Attributes:
        runtime: Runtime of the artifact.
        mode: `dynamic` or `static` for int8; `weights` for weight-only quantization, with activations in fp32.
    """

    CONFIG_NAME = "quantization_config.json"
    FULL_CONFIGURATION_FILE = "quantization_config.json"

    runtime = ""
    mode = ""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)  # without this, transformers would generate a constructor that takes any keyword

    @property
    def precision(self) -> str:
        """Name of the precision in reports."""
        return f"int8-{self.mode}"


class DynamicQuantizationConfig(QuantizationConfig):
    """Dynamic int8 for ONNX Runtime: activation ranges are computed for each batch.

    Args:
        per_channel: One weight scale for each output channel.
        reduce_range: 7-bit weights, for CPUs without VNNI; None decides by the CPU.
        **kwargs: None; an unknown setting is refused by name.

    Raises:
        RecipeError: There is no such setting, or it has an invalid value.
    """

    model_type = "hfcompress-onnxruntime-dynamic"
    runtime = "onnxruntime"
    mode = "dynamic"

    def __init__(self, per_channel: bool = ONNXRUNTIME.per_channel, reduce_range: bool | None = None, **kwargs: Any):
        _one_of("reduce_range", reduce_range, (None, False, True))
        self.per_channel = _checked(OnnxRuntimeInt8, "per_channel", per_channel)
        self.reduce_range = reduce_range
        super().__init__(**kwargs)


class StaticQuantizationConfig(QuantizationConfig):
    """Static int8 for ONNX Runtime: activation ranges are measured on calibration pairs.

    Args:
        per_channel: One weight scale for each output channel.
        reduce_range: 7-bit weights, for CPUs without VNNI; None decides by the CPU.
        activation_type: `uint8` (U8S8 in ONNX Runtime, for x86) or `int8` (S8S8, for ARM); None decides by the CPU.
        calibration: `minmax` covers every value, `percentile` and `entropy` clip outliers; see
            `hfcompress.quantization.activation_ranges`.
        percentile: Percentage of magnitudes that `percentile` keeps in range.
        **kwargs: None; an unknown setting is refused by name.

    Raises:
        RecipeError: There is no such setting, or it has an invalid value.
    """

    model_type = "hfcompress-onnxruntime-static"
    runtime = "onnxruntime"
    mode = "static"

    def __init__(
        self,
        per_channel: bool = ONNXRUNTIME.per_channel,
        reduce_range: bool | None = None,
        activation_type: str | None = None,
        calibration: str = ONNXRUNTIME.calibration,
        percentile: float = ONNXRUNTIME.percentile,
        **kwargs: Any,
    ):
        _one_of("activation_type", activation_type, (None, "uint8", "int8"))
        _one_of("reduce_range", reduce_range, (None, False, True))
        self.per_channel = _checked(OnnxRuntimeInt8, "per_channel", per_channel)
        self.reduce_range = reduce_range
        self.activation_type = activation_type
        self.calibration = _checked(OnnxRuntimeInt8, "calibration", calibration)
        self.percentile = _checked(OnnxRuntimeInt8, "percentile", percentile)
        super().__init__(**kwargs)


class MixedPrecisionConfig(StaticQuantizationConfig):
    """int8 for ONNX Runtime in which the most sensitive linear layers of the encoder stay in fp32.

    Products of two activations, as in attention, stay in fp32 too.

    Args:
        max_loss: Bound on the calibration loss, which is the mean divergence of the softmax over a query's documents
            from that of the fp32 model. As few layers as possible stay in fp32.
        mode: `dynamic` or `static`.
        fp32_modules: Names of the linear layers that stay in fp32; None until they are chosen.
        sensitivity: Loss with one linear layer in int8, by its name; empty if int8 in all layers keeps the bound.
        figures: `loss` with the chosen layers, `loss_int8` with no layer in fp32, and the number of `modules` to choose
            from.
        **kwargs: As for `StaticQuantizationConfig`; `activation_type` and `calibration` apply to static int8 only.

    Raises:
        RecipeError: There is no such setting, or it has an invalid value.
    """

    model_type = "hfcompress-onnxruntime-mixed"

    def __init__(
        self,
        max_loss: float = 0.01,
        mode: str = ONNXRUNTIME.mode,
        fp32_modules: list[str] | None = None,
        sensitivity: dict[str, float] | None = None,
        figures: dict[str, float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.max_loss = _checked(OnnxRuntimeInt8, "max_loss", max_loss)
        self.mode = _checked(OnnxRuntimeInt8, "mode", mode)
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
        """A copy with the chosen layers and the losses on which the choice was made."""
        chosen = copy.deepcopy(self)
        chosen.fp32_modules, chosen.sensitivity, chosen.figures = fp32_modules, sensitivity, figures
        return chosen


class OpenVINOQuantizationConfig(QuantizationConfig):
    """Static int8 for OpenVINO by NNCF with its transformer preset.

    Args:
        smooth_quant_alpha: Share of activation outliers that is moved into weights; -1 turns SmoothQuant off.
        **kwargs: None; an unknown setting is refused by name.

    Raises:
        RecipeError: There is no such setting, or it has an invalid value.
    """

    model_type = "hfcompress-openvino-static"
    runtime = "openvino"
    mode = "static"

    def __init__(self, smooth_quant_alpha: float = OPENVINO.smooth_quant_alpha, **kwargs: Any):
        self.smooth_quant_alpha = _checked(OpenVinoInt8, "smooth_quant_alpha", smooth_quant_alpha)
        super().__init__(**kwargs)


class WeightQuantizationConfig(QuantizationConfig):
    """Low-bit weight-only quantization: weights are stored packed, and dequantized to fp32 when they are loaded.

    This saves disk space and download. The model runs in fp32 PyTorch, with the same time and memory.

    Args:
        method: `round` (round-to-nearest fixed point; `truncation` is an alias) or `sign`; see
            `hfcompress.models.packing.Codec`.
        bits: Bits of a weight for `round`, 4 to 8; `sign` always has 1.
        group_size: Number of neighbouring weights of a row that share a scale; None for one scale for each channel.
        scope: `embeddings` packs the word embeddings, `all` also the linear layers of the encoder. Other weights, such
            as biases, norms and the head, stay in fp32.
        **kwargs: None; an unknown setting is refused by name.

    Raises:
        RecipeError: There is no such setting, or it has an invalid value.
    """

    model_type = "hfcompress-packed-weights"
    runtime = "torch"
    mode = "weights"

    def __init__(
        self,
        method: str = PACKED.method,
        bits: int = PACKED.bits,
        group_size: int | None = PACKED.group_size,
        scope: str = PACKED.scope,
        **kwargs: Any,
    ):
        self.method = _checked(PackedWeights, "method", method)
        self.bits = 1 if self.method == "sign" else _checked(PackedWeights, "bits", bits)
        self.group_size = _checked(PackedWeights, "group_size", group_size)
        self.scope = _checked(PackedWeights, "scope", scope)
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
    target: str = ONNXRUNTIME.target,
    mode: str = ONNXRUNTIME.mode,
    per_channel: bool = ONNXRUNTIME.per_channel,
    calibration: str = ONNXRUNTIME.calibration,
    percentile: float = ONNXRUNTIME.percentile,
) -> QuantizationConfig:
    """The int8 settings for a kind of hardware.

    | target | activations, weights | `reduce_range` |
    | --- | --- | --- |
    | `avx2`, `avx512` | U8S8 | yes: their instructions saturate with 8-bit weights |
    | `avx512_vnni` | U8S8 | no |
    | `arm64` | S8S8 | no |

    Args:
        target: `avx2`, `avx512`, `avx512_vnni` or `arm64` for ONNX Runtime; `auto` for the CPU of this machine; or
            `openvino`, which adapts to the CPU when it loads a graph.
        mode: `dynamic` or `static`, for ONNX Runtime; activations of dynamic int8 are always unsigned.
        per_channel: One weight scale for each output channel.
        calibration: As for `StaticQuantizationConfig`.
        percentile: As for `StaticQuantizationConfig`.

    Raises:
        RecipeError: There is no such target, mode or calibration.
    """
    _one_of("target", target, ("auto", *CPU_TARGETS, "openvino"))
    _checked(OnnxRuntimeInt8, "mode", mode)
    if target == "openvino":
        return OpenVINOQuantizationConfig()
    cpu = cpu_target() if target == "auto" else target
    if mode == "dynamic":
        return DynamicQuantizationConfig(per_channel, saturates(cpu))
    return StaticQuantizationConfig(per_channel, saturates(cpu), activation_type(cpu), calibration, percentile)


def saturates(cpu: str) -> bool:
    """Whether a kind of CPU requires 7-bit weights."""
    return cpu in SATURATING_TARGETS


def activation_type(cpu: str) -> str:
    """Type of the activations of static int8 that is fast on a kind of CPU."""
    return "int8" if cpu == "arm64" else "uint8"


def weights_from_recipe(step: PackedWeights) -> WeightQuantizationConfig:
    """The config of an artifact with packed weights."""
    return WeightQuantizationConfig(**step.model_dump(exclude={"runtime"}))


def config_from_recipe(step: ArtifactStep) -> QuantizationConfig:
    """The config of a quantized artifact of a recipe; settings that the recipe leaves to the CPU stay open.

    Raises:
        RecipeError: The artifact is a model in 16 bits, which has no file of its own.
    """
    if isinstance(step, HalfPrecision):
        raise RecipeError(
            "A model in 16 bits is not quantized",
            value=step.dtype,
            expected="an artifact with a file of its own",
            remedy="load the checkpoint with this dtype: hfcompress.load_ranker(folder, 'torch', dtype=...)",
        )
    if isinstance(step, PackedWeights):
        return weights_from_recipe(step)
    if isinstance(step, OpenVinoInt8):
        return OpenVINOQuantizationConfig(step.smooth_quant_alpha)
    cpu = None if step.target == "auto" else step.target
    reduce_range = (saturates(cpu) if cpu else None) if step.reduce_range == "auto" else step.reduce_range
    if step.mode == "dynamic" and step.max_loss is None:
        return DynamicQuantizationConfig(step.per_channel, reduce_range)
    settings = {
        **step.model_dump(include={"per_channel", "calibration", "percentile"}),
        "reduce_range": reduce_range,
        "activation_type": activation_type(cpu) if cpu else None,
    }
    if step.max_loss is not None:
        return MixedPrecisionConfig(step.max_loss, step.mode, **settings)
    return StaticQuantizationConfig(**settings)


def require_calibration(config: QuantizationConfig, calibration: Sequence[Any]) -> None:
    """Check that a static config has calibration data.

    Raises:
        DataError: It has none.
    """
    if config.mode == "static" and not len(calibration):
        raise DataError(
            "Static int8 has no calibration pairs",
            value=f"{config.precision} for {config.runtime}",
            expected="pairs like those to be ranked, on which activation ranges are measured; 128 are plenty",
            remedy="give calibration pairs, or use dynamic int8, which needs none",
        )


def _checked(step: type[Strict], name: str, value: Any) -> Any:
    """A value, checked as a recipe checks the setting of this name."""
    field = step.model_fields[name]
    annotation: Any = Annotated[field.annotation, field]
    try:
        return TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        raise _invalid(name, value, error.errors()[0]["msg"].removeprefix("Input should be ")) from error


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise _invalid(name, value, " or ".join(str(each) for each in allowed))


def _invalid(name: str, value: Any, expected: str) -> RecipeError:
    return RecipeError(f"Invalid {name}", value=value, expected=expected, remedy=f"correct {name}")
