"""The logit is scaled and shifted by the weights of the last layer, in every family and in modular heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, IDENTITY, make_pico, random_inputs, uneven_plan
from modular_samples import head, write_layout, write_modular
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense
from torch import nn
from transformers import BertTokenizerFast

from hfcompress.errors import ModelError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_model
from hfcompress.models.modular import nonlinear_score
from hfcompress.models.score_head import rescale_score
from hfcompress.models.surgery import apply_plan


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str) -> None:
    model, inputs = apply_plan(make_pico(family), uneven_plan()), random_inputs(5, 9)
    with torch.inference_mode():
        before = model(**inputs).logits
        after = rescale_score(model, 1.3, -2.5)(**inputs).logits
    torch.testing.assert_close(after, 1.3 * before - 2.5, atol=1e-5, rtol=1e-6)
    assert nonlinear_score(model.config) == ""


def test_the_identity_changes_no_bit() -> None:
    model, inputs = make_pico(), random_inputs(5, 9)
    with torch.inference_mode():
        before = model(**inputs).logits
        assert torch.equal(rescale_score(model, 1.0, 0.0)(**inputs).logits, before)


def test_the_checkpoint_reloads_bit_equal(tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    model, inputs = rescale_score(apply_plan(make_pico(), uneven_plan()), 0.7, 3.0), random_inputs(5, 9)
    save_checkpoint(tmp_path, model, tokenizer, IDENTITY, 32)
    with torch.inference_mode():
        assert torch.equal(load_model(str(tmp_path))(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("layout", ["bert-mean-norm-no-bias", "modernbert-cls"])
def test_a_modular_head_gets_a_bias_where_it_has_none(
    layout: str, tmp_path: Path, tokenizer: BertTokenizerFast
) -> None:
    model = load_model(str(write_layout(tmp_path / "source", tokenizer, layout)))
    inputs = random_inputs(5, 9)
    with torch.inference_mode():
        before = model(**inputs).logits
        after = rescale_score(model, 2.0, -1.0)(**inputs).logits
        torch.testing.assert_close(after, 2 * before - 1, atol=1e-5, rtol=1e-6)
        save_checkpoint(tmp_path / "out", model, tokenizer, IDENTITY, 32)
        assert torch.equal(load_model(str(tmp_path / "out"))(**inputs).logits, after)
    peer = CrossEncoder(str(tmp_path / "out"), device="cpu")
    pairs = [("ba de fi", "go gu"), ("ba", "de sun")]
    own = CrossEncoder(str(tmp_path / "source"), device="cpu").predict(pairs, activation_fn=nn.Identity())
    assert peer.predict(pairs, activation_fn=nn.Identity()) == pytest.approx(2 * own - 1, abs=1e-5)


def test_a_score_that_is_no_linear_function_is_refused(tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    modules = head("mean", bias=True, norm=False)
    modules[-1] = Dense(24, 1, activation_function=nn.Tanh(), module_output_name="scores")
    model = load_model(str(write_modular(tmp_path / "tanh", tokenizer, "bert", modules)))
    assert nonlinear_score(model.config) == "4_Dense: torch.nn.modules.activation.Tanh, use_residual=False"
    with pytest.raises(ModelError, match="no linear function"):
        rescale_score(model, 2.0, 0.0)
