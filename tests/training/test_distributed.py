"""Two processes train as one does on the same batch."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_pico, uneven_plan, write_beir
from transformers import BertTokenizerFast

import hfcompress
from hfcompress.data.ranking import RankingData
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.surgery import apply_plan, current_plan

SCRIPT = Path(__file__).parents[2] / "scripts" / "distill.py"
IDENTITY = "torch.nn.modules.linear.Identity"


def launch(processes: int, *arguments: object) -> None:
    """Run the script in several processes, or in this one, which has loaded the libraries."""
    if processes == 1:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *launcher, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.soak
def test_two_processes_have_the_loss_curve_of_one(
    word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    data = write_beir(tmp_path / "words", word_data)
    save_checkpoint(tmp_path / "teacher", make_pico(seed=3, **quiet), tokenizer, IDENTITY, 32)
    student = apply_plan(make_pico(seed=3, **quiet), uneven_plan())
    save_checkpoint(tmp_path / "student", student, tokenizer, IDENTITY, 32)
    curves, weights = [], []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        launch(
            processes, tmp_path / "teacher", tmp_path / "student", "--data", data, "--out", out, "--max-length", 32,
            "--learning-rate", 1e-3, "--fp32",
        )  # fmt: skip
        log = json.loads((out / "trainer_state.json").read_text())["log_history"]
        curves.append([entry[key] for entry in log for key in ("loss", "grad_norm", "eval_ndcg@10") if key in entry])
        model = hfcompress.load_model(str(out / "model"))
        assert current_plan(model) == uneven_plan()
        weights.append(model.state_dict())
    assert len(curves[0]) == 2 * 10 + 2  # 40 queries in steps of 8, two epochs
    # Sums over lists are taken in another order, in fp32.
    assert curves[1] == pytest.approx(curves[0], rel=2e-4, abs=1e-5)
    for name, tensor in weights[0].items():
        # The loss does not depend on these biases; AdamW makes steps of the rounding errors in their gradients.
        if not name.endswith(("key.bias", "classifier.bias")):
            torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4)
    changed = student.state_dict()
    assert any(not torch.equal(tensor, changed[name]) for name, tensor in weights[0].items())
