"""RankerQuantizer: the folder that it writes opens, and what cannot be done is said before anything is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import MARK, SIGMOID, WORDS, make_pico, uneven_plan
from optimum.quantization_base import OptimumQuantizer
from transformers import BertTokenizerFast

import hfcompress
from hfcompress.errors import DataError, HfCompressError, ModelError, OutputError, RecipeError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.layout import ONNX_FP32, ONNX_INT8, ONNX_INT8_STATIC
from hfcompress.models.surgery import apply_plan
from hfcompress.optimum_config import RankerCompressionConfig
from hfcompress.quantization.config import DynamicQuantizationConfig, StaticQuantizationConfig, config_for

README = Path(__file__).parents[2] / "README.md"
PAIRS = [(" ".join(WORDS[number : number + 3]), " ".join(WORDS[number : 2 * number + 3])) for number in range(20)]


@pytest.fixture
def cross_encoder(tmp_path: Path, tokenizer: BertTokenizerFast) -> Path:
    """A pico BERT cross-encoder of one layer, since the time of an export grows with their number."""
    save_checkpoint(tmp_path / "cross-encoder", make_pico(num_hidden_layers=1), tokenizer, SIGMOID, 32)
    return tmp_path / "cross-encoder"


@pytest.fixture
def pruned(tmp_path: Path, tokenizer: BertTokenizerFast) -> Path:
    folder = tmp_path / "pruned"
    save_checkpoint(folder, apply_plan(make_pico(), uneven_plan()), tokenizer, SIGMOID, 32)
    return folder


def test_the_folder_is_that_of_a_run(pruned: Path, tmp_path: Path) -> None:
    quantizer = hfcompress.RankerQuantizer.from_pretrained(pruned)
    assert isinstance(quantizer, OptimumQuantizer)
    out = tmp_path / "out"
    configs = [StaticQuantizationConfig(calibration="entropy"), DynamicQuantizationConfig()]
    written = quantizer.quantize(out, configs, PAIRS, progress=False)
    assert written == [out / ONNX_INT8_STATIC, out / ONNX_INT8]
    before = hfcompress.load_ranker(pruned, "torch").score(PAIRS)
    np.testing.assert_array_equal(hfcompress.load_ranker(out, "torch").score(PAIRS), before)
    np.testing.assert_allclose(hfcompress.load_ranker(out, "onnxruntime", ONNX_FP32).score(PAIRS), before, atol=1e-4)
    for path in (ONNX_INT8, ONNX_INT8_STATIC):
        assert np.corrcoef(hfcompress.load_ranker(out, "onnxruntime", path).score(PAIRS), before)[0, 1] > 0.9
    config = RankerCompressionConfig.from_pretrained(out)
    assert config.recipe is None and config.plan == uneven_plan().to_dict()
    assert config.quantization[ONNX_INT8_STATIC]["calibration"] == "entropy"
    assert set(config.quantization) == {ONNX_INT8, ONNX_INT8_STATIC}


def test_dynamic_int8_for_this_cpu_without_texts_is_the_default(cross_encoder: Path, tmp_path: Path) -> None:
    quantizer = hfcompress.RankerQuantizer.from_pretrained(str(cross_encoder), max_length=16)
    (path,) = quantizer.quantize(tmp_path / "out", progress=False)
    assert path == tmp_path / "out" / ONNX_INT8
    ranker = hfcompress.load_ranker(tmp_path / "out")
    assert ranker.tokenizer.model_max_length == 16
    assert ranker.rank(MARK, [MARK, WORDS[0]])[0].score <= 1  # the checkpoint's sigmoid is still there
    saved = RankerCompressionConfig.from_pretrained(tmp_path / "out").quantization[ONNX_INT8]
    assert saved["reduce_range"] == config_for().reduce_range


def test_a_wrong_export_is_found_without_texts_too(
    cross_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantizer = hfcompress.RankerQuantizer.from_pretrained(cross_encoder)
    other = make_pico(seed=1, num_hidden_layers=1)
    export = hfcompress.quantization.artifacts.onnx_backend.export_onnx
    monkeypatch.setattr(
        "hfcompress.quantization.artifacts.onnx_backend.export_onnx",
        lambda _model, tokenizer, first_token: export(other, tokenizer, first_token),
    )
    with pytest.raises(ModelError, match=r"scores of the .* export differ from those of PyTorch"):
        quantizer.quantize(tmp_path / "out", progress=False)
    assert not list(tmp_path.glob("*out*"))  # nor half of a folder


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"config": StaticQuantizationConfig()}, DataError, "no calibration pairs"),
        (
            {"config": [config_for("avx2"), config_for("arm64")]},
            RecipeError,
            "Two quantization configs .* same file",
        ),
        ({"calibration_pairs": ["query"]}, DataError, "two texts"),
        ({"calibration_pairs": [("query", None)]}, DataError, "two texts"),
    ],
)
def test_what_cannot_be_done_is_said_first(
    arguments: dict[str, object], error: type[HfCompressError], named: str, cross_encoder: Path, tmp_path: Path
) -> None:
    quantizer = hfcompress.RankerQuantizer.from_pretrained(cross_encoder)
    with pytest.raises(error, match=named):
        quantizer.quantize(tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(cross_encoder: Path) -> None:
    before = sorted(path.name for path in cross_encoder.iterdir())
    with pytest.raises(OutputError, match="new or empty"):
        hfcompress.RankerQuantizer.from_pretrained(cross_encoder).quantize(cross_encoder)
    assert sorted(path.name for path in cross_encoder.iterdir()) == before


def test_the_readme_quantizes(cross_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if "RankerQuantizer" in block]
    monkeypatch.chdir(tmp_path)
    teacher = tmp_path / "out" / "quickstart" / ".hfcompress" / "teacher"
    teacher.parent.mkdir(parents=True)
    cross_encoder.rename(teacher)
    scope: dict[str, Callable] = {}
    exec(block, scope)
    assert scope["ranker"].score([("a", "b"), ("c", "d e")]).shape == (2,)  # type: ignore[attr-defined]
