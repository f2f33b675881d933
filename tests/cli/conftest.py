"""Pico models without weights, data, a recipe, and the command line with long work replaced by an exception."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
from command_line import DOCUMENTS, POSITIONS, Command, LongWork, write_data
from tokenizers import Tokenizer
from tokenizers import models as tokenizer_models
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, DistilBertConfig, GPT2Config, PreTrainedTokenizerFast, RobertaConfig

from hfcompress import pipeline
from hfcompress.cli import main
from hfcompress.models.architectures import ARCHITECTURES
from hfcompress.models.plan import LayerPlan, PruningPlan


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with the config and the tokenizer of pico models, without weights; copy them before a change."""
    root = tmp_path_factory.mktemp("models")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "dog", *map(str, range(DOCUMENTS))]
    backend = Tokenizer(tokenizer_models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    sizes = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": 0,
    }
    plan = PruningPlan(6, 2, 64, tuple(LayerPlan(layer, (0, 1), tuple(range(64))) for layer in (1, 4)))
    pruned = {"format": 1, "architecture": ARCHITECTURES["bert"].to_dict(), "plan": plan.to_dict()}
    configs = {
        "encoder": BertConfig(**sizes, num_labels=1),
        "two-labels": BertConfig(**sizes, num_labels=2),
        "bert-decoder": BertConfig(**sizes, num_labels=1, is_decoder=True),
        "roberta": RobertaConfig(**{**sizes, "pad_token_id": 1}, num_labels=1),
        "distilbert": DistilBertConfig(vocab_size=len(words), dim=32, n_layers=2, n_heads=2, hidden_dim=64),
        "gpt2": GPT2Config(vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=POSITIONS),
        "pruned": BertConfig(**sizes, num_labels=1, hfcompress=pruned),
    }
    for name, config in configs.items():
        config.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    configs["encoder"].save_pretrained(root / "no-tokenizer")
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


@pytest.fixture
def settings(models: Path, data: Path) -> dict[str, Any]:
    """A sound recipe that trains, prunes and recovers."""
    return {
        "name": "pico",
        "data": {"sets": [str(data)]},
        "teacher": {"model": str(models / "encoder"), "max_length": 32, "train": {}},
        "prune": {"heads": 0.5, "ffn": 0.5},
        "recover": {"documents": 4},
        "quantize": {"artifacts": [{"runtime": "onnxruntime", "mode": "dynamic"}]},
    }


@pytest.fixture
def _no_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def long_work(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise LongWork

    monkeypatch.setattr(pipeline, "do_steps", long_work)
    monkeypatch.setattr("hfcompress.rankers.base.BatchedRanker.score", long_work)


@pytest.fixture
def command(_no_long_work: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line; returns its exit code and what it wrote to stderr."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hfcompress", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run
