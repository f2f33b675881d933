"""Cross-encoders with an fp32 graph, exported once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from target_samples import write_encoder
from transformers import BertTokenizerFast

from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.quantization.onnxruntime import export_onnx, save_onnx


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory, tokenizer: BertTokenizerFast) -> Callable[[str], Path]:
    """The folder of a cross-encoder of a family, with `onnx/model.onnx`; copy it before a change."""

    @cache
    def written(family: str) -> Path:
        folder = write_encoder(tmp_path_factory.mktemp("encoders") / family, tokenizer, family)
        name = str(folder)
        save_onnx(export_onnx(load_model(name), load_tokenizer(name)), folder / "onnx" / "model.onnx")
        return folder

    return written
