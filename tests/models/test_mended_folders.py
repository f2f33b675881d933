"""Folders with a fault that has a plain meaning, and those that are refused with the way out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SIGMOID, make_pico
from folder_alterations import GARBAGE, PAIRS, POINTER
from report_samples import example_report
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

from hfcompress.errors import ModelError, OutputError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_config, load_encoder, load_tokenizer
from hfcompress.optimum_config import RankerCompressionConfig
from hfcompress.rankers.load import load_ranker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.report.report import RunReport

Edit = Callable[[Path], None]


def settings(file: str, **changes: Any) -> Edit:
    """Changes of keys of a JSON file; ... removes a key."""

    def edit(folder: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text(encoding="utf-8")) | changes
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))

    return edit


def weights(*names: str, removed: str = "nothing") -> Edit:
    """Additional weights, and removed ones."""

    def edit(folder: Path) -> None:
        path = folder / "model.safetensors"
        state = {name: tensor for name, tensor in load_file(path).items() if not name.startswith(removed)}
        save_file(state | {name: torch.ones(3) for name in names}, path, {"format": "pt"})

    return edit


def all_of(*edits: Edit) -> Edit:
    def edit(folder: Path) -> None:
        for each in edits:
            each(folder)

    return edit


def remove(*files: str) -> Edit:
    def edit(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return edit


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/base"})
    )
    (folder / "adapter_model.safetensors").write_bytes(b"")


def slow_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "spm.model").write_bytes(b"\n\x0e\n\x05<unk>")


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(POINTER)


QUANTIZED = {"quant_method": "gptq", "bits": 4}
SAME = {
    "pad_token null": all_of(
        settings("tokenizer_config.json", pad_token=None), settings("special_tokens_map.json", pad_token=...)
    ),
    "pad_token_id null": settings("config.json", pad_token_id=None),
    "pad_token_id -1": settings("config.json", pad_token_id=-1),
    "quantization_config": settings("config.json", quantization_config=QUANTIZED),
    "quantization_config of an unknown tool": settings("config.json", quantization_config={"bits": 8}),
    "quantization_config empty": settings("config.json", quantization_config={}),
    "flash attention": settings("config.json", attn_implementation="flash_attention_2"),
    "attention of the Hub": settings("config.json", _attn_implementation="kernels-community/flash-attn3"),
    "unknown attention": settings("config.json", attn_implementation="nonsense"),
    "pre-training heads": weights("cls.predictions.bias", "cls.seq_relationship.weight"),
    "pooler": weights("roberta.pooler.dense.weight", "bert.embeddings.position_ids"),
}


@pytest.mark.parametrize("case", SAME)
def test_what_others_left_in_a_folder_changes_no_score(case: str, cross_encoder: Path) -> None:
    expected = load_ranker(cross_encoder).score(PAIRS)
    SAME[case](cross_encoder)
    ranker = load_ranker(cross_encoder)
    np.testing.assert_allclose(ranker.score(PAIRS), expected, atol=1e-6)
    assert isinstance(ranker, TorchRanker)
    assert ranker.model.config.pad_token_id == ranker.tokenizer.pad_token_id == 0
    assert not hasattr(ranker.model.config, "quantization_config")
    ranker.model.save_pretrained(cross_encoder)  # without what was ignored
    ranker.tokenizer.save_pretrained(cross_encoder)
    np.testing.assert_allclose(load_ranker(cross_encoder).score(PAIRS), expected, atol=1e-6)


REFUSED = {
    "adapter": (all_of(adapter, remove("config.json", "model.safetensors")), r"adapter_model\.safetensors.*an empty"),
    "adapter beside a model": (adapter, r"adapter of PEFT.*LORA.*org/base.*are merged already, remove"),
    "slow tokenizer": (slow_tokenizer, r"slow tokenizer.*spm\.model.*pip install sentencepiece"),
    "unknown pre-tokenizer": (
        settings("tokenizer.json", pre_tokenizer={"type": "FromTheFuture"}), r"PreTokenizer.*update transformers"
    ),
    "unknown normalizer": (settings("tokenizer.json", normalizer={"type": "FromTheFuture"}), r"Normalizer.*update"),
    "no head": (weights("bert.pooler.extra", removed="classifier."), r"missing_keys.*classifier.*scoring head"),
    "head with another name": (weights("score.weight"), r"unexpected_keys.*score\.weight"),
    "more layers": (weights("bert.encoder.layer.4.output.dense.bias"), r"unexpected_keys.*layer\.4"),
    "quantized weights": (
        all_of(weights("bert.encoder.layer.0.output.SCB"), settings("config.json", quantization_config=QUANTIZED)),
        r"unexpected_keys.*SCB.*dequantized",
    ),
    "pad_token_id out of range": (settings("config.json", pad_token_id=5000), r"pad_token_id 5000, vocab_size 120"),
    "larger vocabulary": (settings("config.json", vocab_size=50), r"does not fit the model.*vocab_size=50"),
    "activation": (settings("config.json", sentence_transformers="sigmoid"), r"sentence_transformers of config\.json"),
    "pointer": (pointer, r"model\.safetensors.*git lfs pull"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_mended_is_refused_with_a_remedy(case: str, cross_encoder: Path) -> None:
    edit, message = REFUSED[case]
    edit(cross_encoder)
    with pytest.raises(ModelError, match=message):
        load_ranker(cross_encoder)


def test_padding_tokens_fit_the_model(tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    """Families that number positions from the padding token need its id; a token without an embedding is replaced."""
    size = len(tokenizer)
    for family in ("bert", "roberta"):
        folder = tmp_path / family
        save_checkpoint(folder, make_pico(family, vocab_size=size, pad_token_id=0), tokenizer, SIGMOID, 32)
        expected = load_ranker(folder).score(PAIRS)
        for changes in ({"pad_token_id": None}, {"pad_token_id": -1}):
            settings("config.json", **changes)(folder)
            np.testing.assert_allclose(load_ranker(folder).score(PAIRS), expected, atol=1e-6)
        for token in (None, "[NEW]"):  # the second is added to the vocabulary, after the last embedding
            settings("tokenizer_config.json", pad_token=token)(folder)
            settings("special_tokens_map.json", pad_token=token)(folder)
            assert load_tokenizer(str(folder)).pad_token == "[PAD]"
            assert load_config(str(folder)).pad_token_id == 0
            np.testing.assert_allclose(load_ranker(folder).score(PAIRS), expected, atol=1e-6)
        remove("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")(folder)
        assert load_config(str(folder)).pad_token_id == type(make_pico(family).config)().pad_token_id
        assert load_encoder(str(folder)).config.pad_token_id is not None


def test_the_end_of_sequence_token_pads_if_there_is_no_other(cross_encoder: Path) -> None:
    backend = Tokenizer(WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2, "sun": 3}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    save = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", model_max_length=32)
    remove("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")(cross_encoder)
    save.save_pretrained(cross_encoder)
    settings("config.json", pad_token_id=None)(cross_encoder)
    assert load_tokenizer(str(cross_encoder)).pad_token == "</s>"
    assert load_config(str(cross_encoder)).pad_token_id == 1
    settings("tokenizer_config.json", eos_token=None)(cross_encoder)
    with pytest.raises(ModelError, match=r"no padding token.*set tokenizer\.pad_token"):
        load_ranker(cross_encoder)
    with pytest.raises(ModelError, match="no padding token"):
        TorchRanker(make_pico(), AutoTokenizer.from_pretrained(cross_encoder))


def test_the_length_of_sentence_transformers_is_used(cross_encoder: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    settings("tokenizer_config.json", model_max_length=...)(cross_encoder)
    for length in (32, 16, None):
        settings("sentence_bert_config.json", max_seq_length=length)(cross_encoder)
        ours, model = load_ranker(cross_encoder), sentence_transformers.CrossEncoder(str(cross_encoder), device="cpu")
        assert ours.tokenizer.model_max_length == length or length is None
        np.testing.assert_allclose(ours.activation(ours.score(PAIRS)), model.predict(PAIRS), atol=1e-5)


def test_reports_and_configs_of_runs_name_what_is_wrong(tmp_path: Path) -> None:
    path = example_report().save(tmp_path)
    for content in (POINTER, b"", GARBAGE, b"[]", path.read_bytes()[:100]):
        path.write_bytes(content)
        with pytest.raises(OutputError, match=r"report\.json"):
            RunReport.load(tmp_path)
    with pytest.raises(ModelError, match=r"hfcompress_config\.json cannot be opened"):
        RankerCompressionConfig.from_pretrained(tmp_path)
    RankerCompressionConfig(versions={"torch": "2"}).save_pretrained(tmp_path)
    assert RankerCompressionConfig.from_pretrained(tmp_path).versions == {"torch": "2"}
    settings(RankerCompressionConfig.CONFIG_NAME, versions=[1])(tmp_path)
    with pytest.raises(ModelError, match=r"versions: .*dictionary"):
        RankerCompressionConfig.from_pretrained(tmp_path)


def test_encoders_lack_no_weights_but_those_of_pooler_and_head(cross_encoder: Path) -> None:
    weights(removed="classifier.")(cross_encoder)
    weights(removed="bert.pooler.")(cross_encoder)
    load_encoder(str(cross_encoder))
    weights(removed="bert.encoder.layer.2.output.dense")(cross_encoder)
    with pytest.raises(ModelError, match=r"missing_keys.*layer\.2\.output\.dense.*same save"):
        load_encoder(str(cross_encoder))
