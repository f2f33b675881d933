"""A LoRA adapter in a repository on the Hub, through the real client over loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from conftest import pico_config, random_inputs
from hub_server import HubServer
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModel, AutoModelForSequenceClassification, BertTokenizerFast

from hfcompress.errors import ModelError
from hfcompress.evaluation.results import base_model_name
from hfcompress.models import adapters, sentence_transformers
from hfcompress.models.license import license_of
from hfcompress.models.load import load_config, load_model, load_tokenizer, resolve
from hfcompress.recipe import Recipe

NAME = "org/adapter"


@pytest.fixture
def hub(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub whose files are downloaded into a cache of their own."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    files = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    kept = (adapters._downloaded, sentence_transformers._downloaded)
    for each in kept:
        each.cache_clear()
    yield server
    for each in kept:
        each.cache_clear()


def publish(hub: HubServer, name: str, folder: Path) -> None:
    hub.add(name, {path.name: path.read_bytes() for path in folder.iterdir()})


@pytest.fixture
def logits(hub: HubServer, tokenizer: BertTokenizerFast, tmp_path: Path) -> torch.Tensor:
    """Publish an encoder and an adapter with a head; gives the logits of both together."""
    base, folder = tmp_path / "base", tmp_path / "adapter"
    AutoModel.from_config(pico_config("bert")).save_pretrained(base)
    tokenizer.save_pretrained(base)
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    settings = LoraConfig(r=2, target_modules=["query"], init_lora_weights=False, task_type=TaskType.SEQ_CLS)
    wrapped = get_peft_model(model, settings).eval()
    wrapped.save_pretrained(folder)
    written = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**written, "base_model_name_or_path": "org/base"}))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    publish(hub, "org/base", base)
    publish(hub, NAME, folder)
    with torch.inference_mode():
        found: torch.Tensor = wrapped(**random_inputs(4, 9)).logits
    return found


def test_an_adapter_by_its_repository(hub: HubServer, logits: torch.Tensor, tokenizer: BertTokenizerFast) -> None:
    with torch.inference_mode():
        found = load_model(NAME)(**random_inputs(4, 9)).logits
    torch.testing.assert_close(found, logits, atol=1e-5, rtol=0)
    assert load_config(NAME).num_labels == 1 and len(load_tokenizer(NAME)) == len(tokenizer)
    assert license_of(NAME) == "mit"
    recipe = {"name": "x", "data": {"sets": ["api-search"]}, "teacher": {"model": NAME}}
    assert base_model_name(Recipe.model_validate(recipe)) == "org/base"
    asked = len(hub.requests)
    assert resolve(NAME) == resolve(NAME) and len(hub.requests) == asked


def test_what_is_no_adapter(hub: HubServer, logits: torch.Tensor, tmp_path: Path) -> None:
    assert resolve("org/base") == "org/base" and resolve("org/missing") == "org/missing"
    publish(hub, "org/both", tmp_path / "base")
    hub.repos["org/both"].files()["adapter_config.json"] = (tmp_path / "adapter" / "adapter_config.json").read_bytes()
    assert resolve("org/both") == "org/both"
    with pytest.raises(ModelError, match=r"org/both contains an adapter.*contains the adapter alone"):
        load_config("org/both")
