"""Two machines, launched by the file of the documentation, train as one process does on the same batch."""

from __future__ import annotations

import json
import os
import runpy
import socket
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

ROOT = Path(__file__).parents[2]
SCRIPT, LAUNCH_FILE = ROOT / "scripts" / "distill.py", ROOT / "configs" / "accelerate" / "two-machines.yaml"
IDENTITY = "torch.nn.modules.linear.Identity"


def launch(processes: int, *arguments: object) -> None:
    """Run the script on as many machines by the launch file of the documentation, or in this process.

    This process has loaded the libraries. The machines are this one: each launch is what a user starts on one of them.
    """
    if processes == 1:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # GPUs of this machine would be shared by both.
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    launches = []
    for rank in range(processes):
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(LAUNCH_FILE)]
        command += ["--machine_rank", str(rank), "--main_process_ip", "127.0.0.1", "--main_process_port", str(port)]
        command += [str(SCRIPT), *map(str, arguments)]
        launches.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        )
    for each in launches:
        _, errors = each.communicate(timeout=300)
        assert each.returncode == 0, errors[-3000:]


@pytest.mark.soak
def test_two_machines_have_the_loss_curve_of_one(
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
