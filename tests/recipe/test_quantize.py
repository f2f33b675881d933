"""Recipe section `quantize`: invalid values, one artifact for each file, and names of methods."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from recipe_samples import assert_named

from hfcompress.recipe import OnnxRuntimeInt8, OpenVinoInt8, PackedWeights, QuantizeStep


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("quantize.artifacts.0.mode", "weights", "'dynamic' or 'static'"),
        ("quantize.artifacts.0.runtime", "tensorrt", "tensorrt"),
        ("quantize.artifacts.0.target", "sse4", "'avx512_vnni' or 'arm64'"),
        ("quantize.artifacts.0.calibration", "percentile", "mode: static"),
        ("quantize.artifacts.1.calibration", "mean", "'percentile' or 'entropy'"),
        ("quantize.artifacts.1.percentile", 0.99, "greater than 50"),
        ("quantize.artifacts.1.percentile", 99.9, "calibration: percentile; minmax does not read it"),
        ("quantize.artifacts.1.max_loss", 0, "greater than 0"),
        ("quantize.artifacts.2.smooth_quant_alpha", 2, "less than or equal to 1"),
        ("quantize.artifacts.3.bits", 3, "greater than or equal to 4"),
        ("quantize.artifacts.3.group_size", 0, "greater than 0"),
        ("quantize.artifacts.3.scope", "head", "'embeddings' or 'all'"),
        ("quantize.artifacts.3.method", "ternary", "'round' or 'sign'"),
    ],
)
def test_invalid_values_are_named(path: str, value: Any, words: str) -> None:
    assert_named(path, value, words)


def test_artifacts_of_one_file_are_refused() -> None:
    twice = [OnnxRuntimeInt8(mode="static"), OnnxRuntimeInt8(mode="static", calibration="entropy"), OpenVinoInt8()]
    with pytest.raises(ValidationError, match="more than one for onnxruntime static"):
        QuantizeStep(artifacts=twice)
    QuantizeStep(artifacts=[*twice[1:], OnnxRuntimeInt8(mode="dynamic")])
    packed = [PackedWeights(bits=4), PackedWeights(bits=8), PackedWeights(method="sign")]
    QuantizeStep(artifacts=[*packed, OpenVinoInt8()])
    with pytest.raises(ValidationError, match="more than one for packed 4 bits"):
        QuantizeStep(artifacts=[*packed, PackedWeights(bits=4, scope="all")])


def test_truncation_is_an_alias_of_round(caplog: pytest.LogCaptureFixture) -> None:
    step = PackedWeights.model_validate({"method": "truncation", "bits": 5})
    assert step == PackedWeights(bits=5) and step.model_dump()["method"] == "round"
    assert not caplog.records
