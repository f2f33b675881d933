"""Quantization settings as Optimum-style configs: saved and reloaded like any Optimum config."""

from __future__ import annotations

from typing import Any

from optimum.configuration_utils import BaseConfig

from hfcompress.recipe import OnnxRuntimeInt8, OpenVinoInt8


class QuantizationConfig(BaseConfig):
    """Base of the int8 settings: 8-bit weights and activations of matrix products and embeddings.

    Attributes:
        runtime: Where the result runs.
        mode: `dynamic` or `static`.
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
        **kwargs: As for Optimum's `BaseConfig`.
    """

    model_type = "hfcompress-onnxruntime-static"
    runtime = "onnxruntime"
    mode = "static"

    def __init__(self, per_channel: bool = True, reduce_range: bool | None = None, **kwargs: Any):
        self.per_channel = per_channel
        self.reduce_range = reduce_range
        super().__init__(**kwargs)


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


def config_from_recipe(step: OnnxRuntimeInt8 | OpenVinoInt8) -> QuantizationConfig:
    """The config of one artefact of a recipe."""
    if isinstance(step, OpenVinoInt8):
        return OpenVINOQuantizationConfig(step.smooth_quant_alpha)
    reduce_range = None if step.reduce_range == "auto" else step.reduce_range
    kind = DynamicQuantizationConfig if step.mode == "dynamic" else StaticQuantizationConfig
    return kind(step.per_channel, reduce_range)
