"""Checkpoints as people have them: half precision, vocabularies without tokenizer.json, pickles, shared weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FAMILIES, IDENTITY, WORDS, make_pico, random_inputs, uneven_plan
from modular_samples import write_modular
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from transformers import BertTokenizerFast

from hfcompress.errors import ModelError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.models.surgery import apply_plan
from hfcompress.rankers.load import load_ranker

PAIRS = [(" ".join(WORDS[n : n + 3]), " ".join(WORDS[2 * n : 2 * n + 1 + n % 9])) for n in range(8)]
HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_is_computed_in_fp32(
    family: str, dtype: torch.dtype, tmp_path: Path, tokenizer: BertTokenizerFast
) -> None:
    """Rankers and steps read its weights without rounding, and write what they make in fp32."""
    half = make_pico(family).to(dtype)
    save_checkpoint(tmp_path / "half", half, tokenizer, IDENTITY, 32)
    assert load_model(str(tmp_path / "half")).dtype == dtype
    model = load_model(str(tmp_path / "half"), dtype="float32")
    inputs, exact = random_inputs(4, 9), make_pico(family)
    exact.load_state_dict(half.state_dict())  # rotary frequencies, which are not stored, stay in fp32
    with torch.inference_mode():
        assert torch.equal(model(**inputs).logits, exact(**inputs).logits)
    pruned = apply_plan(model, uneven_plan())
    save_checkpoint(tmp_path / "pruned", pruned, load_tokenizer(str(tmp_path / "half")), IDENTITY, 32)
    assert load_model(str(tmp_path / "pruned")).dtype == torch.float32


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_modular_cross_encoder_in_half_precision(
    dtype: torch.dtype, tmp_path: Path, tokenizer: BertTokenizerFast
) -> None:
    source = write_modular(tmp_path / "source", tokenizer)
    CrossEncoder(str(source), device="cpu").to(dtype).save(str(tmp_path / "half"), create_model_card=False)
    stored = [load_file(path).values() for path in (tmp_path / "half").rglob("*.safetensors")]
    assert {weight.dtype for weights in stored for weight in weights} == {dtype}
    model = load_model(str(tmp_path / "half"))
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    exact = CrossEncoder(str(tmp_path / "half"), device="cpu", model_kwargs={"dtype": torch.float32}).float()
    found = load_ranker(tmp_path / "half").score(PAIRS)
    np.testing.assert_allclose(found, exact.predict(PAIRS, activation_fn=torch.nn.Identity()), atol=1e-5)


def test_a_vocabulary_without_tokenizer_json(tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    save_checkpoint(tmp_path / "model", make_pico(), tokenizer, IDENTITY, 32)
    wanted = load_ranker(tmp_path / "model").score(PAIRS)
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    (tmp_path / "model" / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "model" / "tokenizer.json").unlink()
    assert np.array_equal(load_ranker(tmp_path / "model").score(PAIRS), wanted)


def test_a_modular_encoder_in_a_pickle_is_refused_with_its_own_conversion(
    tmp_path: Path, tokenizer: BertTokenizerFast
) -> None:
    source = write_modular(tmp_path / "source", tokenizer)
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"convert it: sentence_transformers\.CrossEncoder\(NAME\)\.save\(FOLDER\)"):
        load_model(str(source))
    CrossEncoder(str(source), device="cpu").save(str(tmp_path / "converted"))
    load_model(str(tmp_path / "converted"))


def test_weights_that_are_stored_once_for_several_layers(tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    model = make_pico()
    for layer in model.bert.encoder.layer[1:]:
        layer.attention = model.bert.encoder.layer[0].attention
    save_checkpoint(tmp_path / "each", model, tokenizer, IDENTITY, 32)
    inputs = random_inputs(4, 9)
    assert torch.equal(load_model(str(tmp_path / "each"))(**inputs).logits, model(**inputs).logits)
    once = shutil.copytree(tmp_path / "each", tmp_path / "once")
    state = load_file(once / "model.safetensors")
    kept = {name: value for name, value in state.items() if ".attention." not in name or ".layer.0." in name}
    save_file(kept, once / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"missing_keys.*if layers share weights.*weight\.clone\(\)"):
        load_model(str(once))
