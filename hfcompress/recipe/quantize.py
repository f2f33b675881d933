"""Exports and int8 artefacts of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hfcompress.recipe.base import Positive, Strict


class OnnxRuntimeInt8(Strict):
    """An int8 artefact for ONNX Runtime.

    Attributes:
        runtime: Always `onnxruntime`.
        mode: `dynamic` (activation ranges at run time) or `static` (ranges from calibration pairs).
        per_channel: One scale for each output channel of a weight.
        reduce_range: 7-bit weights; `auto` uses them where the CPU has no VNNI and 8 bits could saturate.
    """

    runtime: Literal["onnxruntime"] = "onnxruntime"
    mode: Literal["dynamic", "static"]
    per_channel: bool = True
    reduce_range: Literal["auto"] | bool = "auto"


class OpenVinoInt8(Strict):
    """An int8 artefact for OpenVINO, by NNCF's post-training quantization with its transformer preset.

    Attributes:
        runtime: Always `openvino`.
        smooth_quant_alpha: Share of the outliers moved from activations into weights; -1 turns SmoothQuant off.
        optional: Skip this artefact, saying so, where the `openvino` extra is not installed.
    """

    runtime: Literal["openvino"] = "openvino"
    smooth_quant_alpha: Annotated[float, Field(ge=-1, le=1)] = 0.95
    optional: bool = False


Int8 = Annotated[OnnxRuntimeInt8 | OpenVinoInt8, Field(discriminator="runtime")]


class QuantizeStep(Strict):
    """Exports and int8 artefacts.

    Attributes:
        artifacts: What to make.
        calibration_pairs: Pairs of train queries and their candidates from which static ranges are measured.
        first_token: The last layer of an exported graph computes the first token only, where the model's head reads
            nothing else: same scores, less work.
    """

    artifacts: list[Int8] = Field(default=[OnnxRuntimeInt8(mode="dynamic")])
    calibration_pairs: Positive = 128
    first_token: bool = True
