"""The example scripts train, prune, and write what `load_ranker` opens."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import FFN, HEADS, LAYERS, make_pico, write_beir
from transformers import BertTokenizerFast

import hfcompress
from hfcompress.data.ranking import RankingData
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.surgery import current_plan

SCRIPTS = Path(__file__).parents[2] / "scripts"
IDENTITY = "torch.nn.modules.linear.Identity"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a script as the command line does, in this process, which has loaded the libraries."""

    def call(script: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")

    return call


@pytest.mark.parametrize("script", ["train_plain.py", "train_cross_encoder.py"])
def test_a_script_trains_prunes_and_saves(
    script: str,
    run: Callable[..., None],
    word_data: RankingData,
    tokenizer: BertTokenizerFast,
    tmp_path: Path,
) -> None:
    data = write_beir(tmp_path / "words", word_data)
    save_checkpoint(tmp_path / "model", make_pico(), tokenizer, IDENTITY, 32)
    out = tmp_path / "out"
    options = ("--data", data, "--out", out, "--max-length", 32, "--learning-rate", 1e-3, "--report-to", "tensorboard")
    run(script, tmp_path / "model", *options)

    log = json.loads((out / "trainer_state.json").read_text())["log_history"]
    quality = [entry["eval_ndcg@10"] for entry in log if "eval_ndcg@10" in entry]
    assert len(quality) == 2 and all(0 < value <= 1 for value in quality)
    heads = [entry["compression/heads"] for entry in log if "compression/heads" in entry]
    assert heads == [LAYERS * HEADS, LAYERS * HEADS // 2, LAYERS * HEADS // 2, LAYERS * HEADS // 2]
    assert list(out.glob("checkpoints/runs/*/compression/events*"))

    ranker = hfcompress.load_ranker(out / "model")
    plan = current_plan(ranker.model)
    assert sum(len(layer.heads) for layer in plan.layers) == LAYERS * HEADS // 2
    assert sum(len(layer.ffn) for layer in plan.layers) == LAYERS * FFN // 2
    assert ranker.tokenizer.model_max_length == 32
    query = next(iter(word_data.splits["test"].candidates))
    pairs = word_data.pairs(query, word_data.splits["test"].candidates[query])
    assert len(set(ranker.score(pairs).tolist())) > 1
    assert json.loads((out / "model" / "config.json").read_text()).get("problem_type") is None


@pytest.mark.parametrize("script", ["train_plain.py", "train_cross_encoder.py", "distill.py"])
def test_a_script_says_what_it_takes(script: str, run: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(script, "--help")
    assert ended.value.code == 0
    assert {"--data", "--out"} <= set(capsys.readouterr().out.split())
