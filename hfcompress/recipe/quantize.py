"""Recipe section `quantize`.

The names, types, bounds and defaults of artifact settings are defined here. The configs of `hfcompress.quantization`,
which are these settings for use without a recipe, take them from here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from hfcompress.recipe.base import Positive, Strict

CpuTarget = Literal["auto", "avx2", "avx512", "avx512_vnni", "arm64"]


def _current_name(method: Any) -> Any:
    return "round" if method == "truncation" else method  # the name of rounding to fixed point in its source literature


class OnnxRuntimeInt8(Strict):
    """An int8 artifact for ONNX Runtime.

    Attributes:
        runtime: Always `onnxruntime`.
        mode: `dynamic` (activation ranges computed at run time) or `static` (ranges from calibration pairs).
        target: CPU that runs the artifact; `auto` is the CPU of the run. It determines whether the activations of
            static int8 are signed, and `reduce_range`.
        per_channel: One weight scale for each output channel.
        reduce_range: 7-bit weights; `auto` uses them on CPUs without VNNI, where sums of 8-bit products can saturate.
        calibration: How static ranges are computed from calibration pairs: `minmax` covers every value, `percentile`
            and `entropy` clip outliers.
        percentile: Percentage of magnitudes that `calibration: percentile` keeps in range.
        max_loss: Mixed precision: as few linear layers of the encoder as possible stay in fp32 such that the divergence
            from the fp32 model is at most this. The divergence is that of the softmax over a query's documents, on
            train queries. By default all layers are int8.
    """

    runtime: Literal["onnxruntime"] = "onnxruntime"
    mode: Literal["dynamic", "static"]
    target: CpuTarget = "auto"
    per_channel: bool = True
    reduce_range: Literal["auto"] | bool = "auto"
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.999
    max_loss: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _calibration_is_static(self) -> OnnxRuntimeInt8:
        if self.mode == "dynamic" and self.calibration != "minmax":
            raise ValueError("calibration requires mode: static; dynamic int8 takes ranges from each batch")
        if self.calibration != "percentile" and self.percentile != type(self).model_fields["percentile"].default:
            raise ValueError(f"percentile requires calibration: percentile; {self.calibration} does not read it")
        return self


class OpenVinoInt8(Strict):
    """An int8 artifact for OpenVINO, from NNCF's post-training quantization with its transformer preset.

    Attributes:
        runtime: Always `openvino`.
        smooth_quant_alpha: Share of activation outliers that is moved into weights; -1 turns SmoothQuant off.
        optional: Skip this artifact with a log message if the `openvino` extra is not installed.
    """

    runtime: Literal["openvino"] = "openvino"
    smooth_quant_alpha: Annotated[float, Field(ge=-1, le=1)] = 0.95
    optional: bool = False


class PackedWeights(Strict):
    """Low-bit weight-only quantization: a smaller file, which is dequantized when it is loaded. No speed-up.

    Attributes:
        runtime: Always `torch`; the model runs in fp32.
        method: `round` (round-to-nearest fixed point; `truncation` is an alias) or `sign` (one bit for each weight,
            times the mean magnitude).
        bits: Bits of a weight for `round`.
        group_size: Number of neighbouring weights of a row that share a scale; by default one scale for each channel.
        scope: `embeddings` packs the word embeddings, `all` also the linear layers of the encoder.
    """

    runtime: Literal["torch"] = "torch"
    method: Annotated[Literal["round", "sign"], BeforeValidator(_current_name)] = "round"
    bits: Annotated[int, Field(ge=4, le=8)] = 8
    group_size: Positive | None = None
    scope: Literal["embeddings", "all"] = "embeddings"

    @model_validator(mode="after")
    def _sign_has_one_bit(self) -> PackedWeights:
        if self.method == "sign" and self.bits != 8:
            raise ValueError("bits requires method: round; sign keeps one bit for each weight")
        return self


class HalfPrecision(Strict):
    """The student in PyTorch in 16 bits, on the `device` of the recipe, usually a GPU.

    It is timed against the teacher on that device, in fp32 and in the same precision. No file is written: the weights
    are those of the checkpoint.

    Attributes:
        runtime: Always `torch`.
        dtype: `float16` or `bfloat16`, which has a larger range and fewer digits.
    """

    runtime: Literal["torch"] = "torch"
    dtype: Literal["float16", "bfloat16"]


def _kind(settings: Any) -> Any:
    """Tag of an artifact: its runtime, or `half` for a model in PyTorch with a `dtype`."""
    runtime = settings.get("runtime") if isinstance(settings, dict) else getattr(settings, "runtime", None)
    half = "dtype" in settings if isinstance(settings, dict) else isinstance(settings, HalfPrecision)
    return "half" if runtime == "torch" and half else runtime


ArtifactStep = Annotated[
    Annotated[OnnxRuntimeInt8, Tag("onnxruntime")]
    | Annotated[OpenVinoInt8, Tag("openvino")]
    | Annotated[PackedWeights, Tag("torch")]
    | Annotated[HalfPrecision, Tag("half")],
    Discriminator(_kind),
]


class QuantizeStep(Strict):
    """Exports and int8 artifacts.

    Attributes:
        artifacts: The artifacts to create.
        calibration_pairs: Number of pairs of train queries and their candidates on which static ranges are measured.
        first_token: Compute the last layer of exported graphs for the first token only, if the model's head reads
            nothing else: same scores, less work.
    """

    artifacts: list[ArtifactStep] = Field(default=[OnnxRuntimeInt8(mode="dynamic")])
    calibration_pairs: Positive = 128
    first_token: bool = True

    @model_validator(mode="after")
    def _one_artifact_a_file(self) -> QuantizeStep:
        kinds = [_file_of(each) for each in self.artifacts]
        if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            raise ValueError(f"artifacts has more than one for {', '.join(twice)}, which would overwrite each other")
        return self


def _file_of(artifact: ArtifactStep) -> str:
    """A name that is the same for artifacts of the same file, or of the same name."""
    if isinstance(artifact, HalfPrecision):
        return f"torch {artifact.dtype}"
    if isinstance(artifact, PackedWeights):
        return "packed sign" if artifact.method == "sign" else f"packed {artifact.bits} bits"
    return f"{artifact.runtime} {getattr(artifact, 'mode', 'static')}"
