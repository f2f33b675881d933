"""A whole run on a modular cross-encoder: its folder opens in sentence-transformers, and can be published."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WORDS
from modular_samples import write_layout
from run_samples import recipe_for
from sentence_transformers import CrossEncoder
from transformers import BertTokenizerFast

from hfcompress import pipeline
from hfcompress.hub.repository import read_repository
from hfcompress.rankers.load import load_ranker
from hfcompress.recipe import Recipe

PAIRS = [(" ".join(WORDS[n : n + 3]), " ".join(WORDS[2 * n : 2 * n + 1 + n % 9])) for n in range(8)]


@pytest.mark.soak
def test_a_run(run_inputs: Path, tmp_path: Path, tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(run_inputs / "words", tmp_path / "words")
    write_layout(tmp_path / "teacher", tokenizer, "modernbert-mean-norm")
    monkeypatch.chdir(tmp_path)  # paths of a published run are relative
    settings, out = recipe_for(Path()), Path("out")
    settings["teacher"] = {"model": "teacher", "max_length": 32}
    settings["recover"]["optimization"] = {**settings["recover"]["optimization"], "adversarial": 0.1}
    settings["quantize"]["artifacts"] = [settings["quantize"]["artifacts"][0], settings["quantize"]["artifacts"][-1]]
    settings["evaluate"]["min_rank_correlation"] = 0
    settings["publish"] = {"license": "mit"}
    report = pipeline.run(Recipe.model_validate(settings), out, progress=False)
    assert report.modular and report.pruning is not None and report.pruning.vocabulary is not None
    card = (out / "README.md").read_text()
    assert "modular cross-encoder of sentence-transformers" in card and "from transformers import" not in card
    assert f"CrossEncoder(folder{', trust_remote_code=True' if report.pruning.custom_code else ''})" in card
    peer = CrossEncoder(str(out), trust_remote_code=report.pruning.custom_code, device="cpu")
    wanted = peer.predict(PAIRS, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(load_ranker(out, "torch").score(PAIRS), wanted, atol=1e-5)
    assert "2_Dense/model.safetensors" in read_repository(out).files
