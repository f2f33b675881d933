"""LoRA adapters of PEFT, merged into their base models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import IDENTITY, MARK, WORDS, make_pico, pico_config, random_inputs, uneven_plan
from modular_samples import write_modular
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, BertTokenizerFast

from hfcompress.errors import MissingExtraError, ModelError
from hfcompress.evaluation.results import base_model_name
from hfcompress.models import adapters
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.license import license_of
from hfcompress.models.load import load_config, load_model, load_tokenizer, model_fingerprint, resolve
from hfcompress.models.surgery import apply_plan
from hfcompress.rankers.load import load_ranker
from hfcompress.recipe import Recipe

PAIRS = [(" ".join(WORDS[n : n + 3]), " ".join([MARK, *WORDS[n : n + 1 + n % 9]])) for n in range(8)]
TARGETS = {"bert": ["query", "value", "dense"], "modernbert": ["Wqkv", "Wi"], "distilbert": ["q_lin", "lin1"]}


def write_adapter(folder: Path, base: Path, family: str = "bert", labels: int = 1, **settings: object) -> torch.Tensor:
    """Save an adapter with random weights, and return the logits of base and adapter for `random_inputs(4, 9)`."""
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels, ignore_mismatched_sizes=True)
    options = {"r": 4, "target_modules": TARGETS[family], "init_lora_weights": False, "task_type": TaskType.SEQ_CLS}
    wrapped = get_peft_model(model, LoraConfig(**{**options, **settings})).eval()
    wrapped.save_pretrained(folder)
    with torch.inference_mode():
        logits: torch.Tensor = wrapped(**random_inputs(4, 9)).logits
    return logits


@pytest.fixture
def encoder(tmp_path: Path, tokenizer: BertTokenizerFast) -> Path:
    """A base model without a head."""
    AutoModel.from_config(pico_config("bert")).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.mark.parametrize("family", TARGETS)
def test_an_adapter_of_an_encoder(family: str, tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    base, folder = tmp_path / "base", tmp_path / "adapter"
    AutoModel.from_config(pico_config(family)).save_pretrained(base)
    tokenizer.save_pretrained(base)
    logits = write_adapter(folder, base, family, modules_to_save=["classifier", "pre_classifier", "head"])
    with torch.inference_mode():
        found = load_model(str(folder))(**random_inputs(4, 9)).logits
    torch.testing.assert_close(found, logits, atol=1e-5, rtol=0)
    assert load_config(str(folder)).num_labels == 1
    assert len(load_tokenizer(str(folder))) == len(tokenizer)
    assert len(load_ranker(folder).score(PAIRS)) == len(PAIRS)


def test_an_adapter_of_a_pruned_cross_encoder(tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    base, folder = tmp_path / "base", tmp_path / "adapter"
    save_checkpoint(base, apply_plan(make_pico(), uneven_plan()), tokenizer, IDENTITY, 32)
    model = load_model(str(base))
    settings = {"r": 4, "target_modules": ["query"], "init_lora_weights": False, "task_type": TaskType.SEQ_CLS}
    wrapped = get_peft_model(model, LoraConfig(**settings)).eval()
    wrapped.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "../base"}))
    with torch.inference_mode():
        found, wanted = (each(**random_inputs(4, 9)).logits for each in (load_model(str(folder)), wrapped))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert load_ranker(folder).activation is load_ranker(base).activation


def test_labels_and_names_of_an_adapter(encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    write_adapter(folder, encoder, labels=3)
    assert load_config(str(folder)).num_labels == 3
    (encoder / "README.md").write_text("---\nlicense: mit\n---\n")
    assert license_of(str(folder)) == "mit"
    recipe = {"name": "x", "data": {"sets": ["api-search"]}, "teacher": {"model": str(folder)}}
    assert base_model_name(Recipe.model_validate(recipe)) == "a local model (encoder)"
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": "org/base"}))
    assert base_model_name(Recipe.model_validate(recipe)) == "org/base"


def test_an_adapter_is_merged_once_and_again_after_a_change(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, merges = tmp_path / "adapter", []
    write_adapter(folder, encoder)
    merge = adapters._merge
    monkeypatch.setattr(adapters, "_merge", lambda *names: merges.append(names) or merge(*names))
    first, fingerprint = resolve(str(folder)), model_fingerprint(str(folder))
    adapters._merged.cache_clear()
    assert resolve(str(folder)) == first and len(merges) == 1
    path = folder / "adapter_model.safetensors"
    save_file({name: 2 * value for name, value in load_file(path).items()}, path)
    assert resolve(str(folder)) != first and len(merges) == 2
    assert model_fingerprint(str(folder)) != fingerprint


def other_kind(folder: Path, encoder: Path) -> None:
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "peft_type": "PREFIX_TUNING"}))


def no_base(folder: Path, encoder: Path) -> None:
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": None}))


def revision(folder: Path, encoder: Path) -> None:
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "revision": "v2"}))


def pickled(folder: Path, encoder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def headless(folder: Path, encoder: Path) -> None:
    state = load_file(folder / "adapter_model.safetensors")
    save_file({name: value for name, value in state.items() if "lora" in name}, folder / "adapter_model.safetensors")


def incomplete(folder: Path, encoder: Path) -> None:
    state = load_file(folder / "adapter_model.safetensors")
    state.pop(next(name for name in state if "lora_A" in name))
    save_file(state, folder / "adapter_model.safetensors")


def another_base(folder: Path, encoder: Path) -> None:
    AutoModel.from_config(pico_config("bert", hidden_size=16)).save_pretrained(encoder)


def damaged(folder: Path, encoder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"x" * 40)


def whole_model_beside(folder: Path, encoder: Path) -> None:
    (folder / "config.json").write_text((encoder / "config.json").read_text())


FAULTS = {
    "kind": (other_kind, "peft_type='PREFIX_TUNING'"),
    "base": (no_base, "names no base model"),
    "revision": (revision, "revision='v2'"),
    "pickle": (pickled, r"adapter_model\.bin.*convert it: peft"),
    "no head": (headless, r"no whole cross-encoder.*classifier\.(bias|weight)"),
    "incomplete": (incomplete, r"1 names of weights differ.*lora_A"),
    "another base": (another_base, "does not fit its base model"),
    "damaged": (damaged, "safetensors format"),
    "a whole model beside it": (whole_model_beside, r"if the weights beside it are merged already, remove"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_merged_is_refused(fault: str, encoder: Path, tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    write_adapter(tmp_path / "adapter", encoder)
    change(tmp_path / "adapter", encoder)
    with pytest.raises(ModelError, match=message):
        load_ranker(tmp_path / "adapter")


def test_without_peft(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adapter(tmp_path / "adapter", encoder)
    monkeypatch.setattr(adapters.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hfcompress\[peft\]'"):
        load_model(str(tmp_path / "adapter"))


def test_an_adapter_of_a_modular_cross_encoder(tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    base = write_modular(tmp_path / "base", tokenizer)
    model = AutoModel.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=2, target_modules=["query"])).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match="modular cross-encoder"):
        load_model(str(tmp_path / "adapter"))
