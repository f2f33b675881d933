"""Exports and int8 artefacts of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hfcompress.recipe.base import Positive, Strict

CpuTarget = Literal["auto", "avx2", "avx512", "avx512_vnni", "arm64"]
CalibrationMethod = Literal["minmax", "percentile", "entropy"]
PackingMethod = Literal["truncation", "sign"]
PackingScope = Literal["embeddings", "all"]


class OnnxRuntimeInt8(Strict):
    """An int8 artefact for ONNX Runtime.

    Attributes:
        runtime: Always `onnxruntime`.
        mode: `dynamic` (activation ranges at run time) or `static` (ranges from calibration pairs).
        target: CPU that the artefact is for; `auto` is that of the run. It decides over signed or unsigned activations
            in static int8, and over `reduce_range`.
        per_channel: One scale for each output channel of a weight.
        reduce_range: 7-bit weights; `auto` uses them where the CPU has no VNNI and 8 bits could saturate.
        calibration: How static ranges follow from calibration pairs: `minmax` keeps every value; `percentile` and
            `entropy` cut outliers off.
        percentile: Percentage of magnitudes that `calibration: percentile` keeps in range.
        max_loss: Mixed precision: as few linear layers of the encoder stay in fp32 as it takes for the divergence of
            the softmax over a query's documents from that of the model in fp32 to be at most this, on train queries;
            leave it out for int8 everywhere.
    """

    runtime: Literal["onnxruntime"] = "onnxruntime"
    mode: Literal["dynamic", "static"]
    target: CpuTarget = "auto"
    per_channel: bool = True
    reduce_range: Literal["auto"] | bool = "auto"
    calibration: CalibrationMethod = "minmax"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.999
    max_loss: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _calibration_is_static(self) -> OnnxRuntimeInt8:
        if self.mode == "dynamic" and self.calibration != "minmax":
            raise ValueError("calibration goes with mode: static; dynamic int8 takes ranges from each batch")
        if self.calibration != "percentile" and self.percentile != type(self).model_fields["percentile"].default:
            raise ValueError(f"percentile goes with calibration: percentile; {self.calibration} does not read it")
        return self


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


class PackedWeights(Strict):
    """Weights of few bits, packed in one file that hfcompress dequantizes when it loads: less disk, no more speed.

    Attributes:
        runtime: Always `torch`: what runs is the model in fp32.
        method: `truncation` to fixed point, or `sign`: one bit a weight, times the mean magnitude.
        bits: Bits of a truncated weight.
        group_size: Neighbouring weights of a row that share a scale; one scale a channel where left out.
        scope: `embeddings` packs the word embeddings, `all` the linear layers of the encoder too.
    """

    runtime: Literal["torch"] = "torch"
    method: PackingMethod = "truncation"
    bits: Annotated[int, Field(ge=4, le=8)] = 8
    group_size: Positive | None = None
    scope: PackingScope = "embeddings"

    @model_validator(mode="after")
    def _sign_has_one_bit(self) -> PackedWeights:
        if self.method == "sign" and self.bits != 8:
            raise ValueError("bits goes with method: truncation; sign keeps one bit a weight")
        return self


ArtifactStep = Annotated[OnnxRuntimeInt8 | OpenVinoInt8 | PackedWeights, Field(discriminator="runtime")]


class QuantizeStep(Strict):
    """Exports and int8 artefacts.

    Attributes:
        artifacts: What to make.
        calibration_pairs: Pairs of train queries and their candidates from which static ranges are measured.
        first_token: The last layer of an exported graph computes the first token only, where the model's head reads
            nothing else: same scores, less work.
    """

    artifacts: list[ArtifactStep] = Field(default=[OnnxRuntimeInt8(mode="dynamic")])
    calibration_pairs: Positive = 128
    first_token: bool = True

    @model_validator(mode="after")
    def _one_artifact_a_file(self) -> QuantizeStep:
        kinds = [_file_of(each) for each in self.artifacts]
        if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            raise ValueError(f"artifacts has more than one for {', '.join(twice)}: they would overwrite each other")
        return self


def _file_of(artifact: ArtifactStep) -> str:
    """What artefacts that would go into one file have in common."""
    if isinstance(artifact, PackedWeights):
        return "packed sign" if artifact.method == "sign" else f"packed {artifact.bits} bits"
    return f"{artifact.runtime} {getattr(artifact, 'mode', 'static')}"
