"""Packed weights of whole models: which weights are packed, and that loading returns them dequantized, bit-equal."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FAMILIES, SIGMOID, VOCABULARY, WORDS, make_pico, random_inputs, stock_plan, uneven_plan
from safetensors import safe_open
from transformers import BertTokenizerFast, PreTrainedModel

import hfcompress
from hfcompress.errors import ModelError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import model_fingerprint
from hfcompress.models.packing import round_trip
from hfcompress.models.plan import PruningPlan
from hfcompress.models.surgery import apply_plan
from hfcompress.optimum_config import RankerCompressionConfig
from hfcompress.quantization.config import WeightQuantizationConfig
from hfcompress.quantization.weights import packed_file, packed_modules, save_packed

PAIRS = [("ba de fi", " ".join(WORDS[index : index + 1 + index % 7])) for index in range(12)]
CONFIGS = [
    WeightQuantizationConfig(),
    WeightQuantizationConfig(bits=4, group_size=8, scope="all"),
    WeightQuantizationConfig("sign", scope="all"),
]


def dequantized(model: PreTrainedModel, config: WeightQuantizationConfig) -> PreTrainedModel:
    """The model with its weights rounded in place."""
    for module in packed_modules(model, config.scope).values():
        module.weight.data = round_trip(module.weight.data, config.codec)
    return model


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.precision)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("plan", [None, uneven_plan(), stock_plan()], ids=["full", "uneven", "stock"])
def test_what_is_loaded_is_bit_equal_to_the_dequantized_weights(
    family: str,
    plan: PruningPlan | None,
    config: WeightQuantizationConfig,
    tokenizer: BertTokenizerFast,
    tmp_path: Path,
) -> None:
    model = apply_plan(make_pico(family), plan) if plan else make_pico(family)
    copy = BertTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    save_checkpoint(tmp_path, model, copy, SIGMOID, 32)
    path = save_packed(model, config, tmp_path)
    assert path == tmp_path / packed_file(config)
    found = hfcompress.load_model(str(tmp_path), file=packed_file(config))
    expected = dequantized(model, config)
    assert type(found).__name__ == type(expected).__name__ and not found.training
    state = expected.state_dict()
    assert found.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.state_dict().items())
    inputs = random_inputs(3, 9)
    with torch.inference_mode():
        assert torch.equal(found(**inputs).logits, expected.eval()(**inputs).logits)


def test_what_is_packed() -> None:
    model = make_pico()
    assert list(packed_modules(model, "embeddings")) == ["bert.embeddings.word_embeddings"]
    every = packed_modules(model, "all")
    assert len(every) == 1 + 4 * 6 and all(model.get_submodule(name) is module for name, module in every.items())
    assert not any("classifier" in name or "pooler" in name or "position" in name for name in every)


def test_size_on_disk(cross_encoder: Path) -> None:
    model = hfcompress.load_model(str(cross_encoder))
    path = save_packed(model, WeightQuantizationConfig(bits=4), cross_encoder)
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rest = parameters - VOCABULARY * 32
    assert len(content) == 8 + header + math.ceil(VOCABULARY * 32 * 4 / 8) + 2 * VOCABULARY + 4 * rest


def test_rankers_open_the_file(cross_encoder: Path) -> None:
    config = WeightQuantizationConfig(bits=8, scope="all")
    model = hfcompress.load_model(str(cross_encoder))
    save_packed(model, config, cross_encoder)
    plain = hfcompress.load_ranker(cross_encoder).score(PAIRS)  # packed weights are never the default
    np.testing.assert_array_equal(hfcompress.load_ranker(cross_encoder, "torch").score(PAIRS), plain)
    ranker = hfcompress.load_ranker(cross_encoder, file=packed_file(config))
    found = ranker.score(PAIRS)
    assert ranker.name == "torch" and not np.array_equal(found, plain) and np.corrcoef(found, plain)[0, 1] > 0.99
    dequantized(model, config).save_pretrained(cross_encoder)
    np.testing.assert_array_equal(hfcompress.load_ranker(cross_encoder, "torch").score(PAIRS), found)


def test_a_folder_with_packed_weights_alone(cross_encoder: Path, tmp_path: Path) -> None:
    config = WeightQuantizationConfig("sign")
    model = hfcompress.load_model(str(cross_encoder))
    save_packed(model, config, cross_encoder)
    before = model_fingerprint(str(cross_encoder))
    (cross_encoder / "model.safetensors").unlink()
    assert model_fingerprint(str(cross_encoder)) != before
    found = hfcompress.load_ranker(cross_encoder).score(PAIRS)
    copy = tmp_path / "unpacked"  # what any client opens
    hfcompress.load_model(str(cross_encoder)).save_pretrained(copy)
    for path in cross_encoder.glob("*token*"):
        shutil.copy(path, copy)
    np.testing.assert_array_equal(hfcompress.load_ranker(copy).score(PAIRS), found)


def test_a_file_of_an_earlier_version_loads() -> None:
    run = Path(__file__).parents[1] / "legacy" / "run"
    file = "packed/model_int6.safetensors"
    with safe_open(run / file, "pt") as packed:
        assert json.loads(packed.metadata()["hfcompress"])["codec"]["method"] == "truncation"
    found, config = hfcompress.load_model(str(run), file=file), WeightQuantizationConfig(bits=6)
    expected = dequantized(hfcompress.load_model(str(run)), config).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())


def test_files_that_do_not_fit(cross_encoder: Path, tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    config = WeightQuantizationConfig(bits=4)
    with pytest.raises(ModelError, match="no such file with packed weights"):
        hfcompress.load_model(str(cross_encoder), file=packed_file(config))
    save_packed(make_pico(), config, cross_encoder)
    with pytest.raises(ModelError, match=packed_file(config)):
        hfcompress.load_ranker(cross_encoder, file="packed/model_int5.safetensors")
    other = tmp_path / "other"
    save_checkpoint(other, apply_plan(make_pico(), uneven_plan()), tokenizer, SIGMOID, 32)
    shutil.copytree(cross_encoder / "packed", other / "packed")
    with pytest.raises(ModelError, match="do not fit"):
        hfcompress.load_model(str(other), file=packed_file(config))


def test_the_quantizer_packs(cross_encoder: Path, tmp_path: Path) -> None:
    quantizer = hfcompress.RankerQuantizer.from_pretrained(cross_encoder)
    out = tmp_path / "out"
    written = quantizer.quantize(out, CONFIGS, progress=False)
    assert written == [out / packed_file(config) for config in CONFIGS] and all(path.is_file() for path in written)
    assert not (out / "onnx").exists()
    saved = RankerCompressionConfig.from_pretrained(out).quantization
    assert saved[packed_file(CONFIGS[1])]["group_size"] == 8
    assert hfcompress.load_ranker(out, file="packed/model_sign.safetensors").score(PAIRS).shape == (12,)
