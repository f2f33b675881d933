"""Check on a real device what the tests can only check on a pretend one, in a few minutes on one GPU.

    python scripts/gpu_check.py --model MODEL --data DATA --out out/gpu-check

Scores, importance, the cost table, search, recovery and speed in 16 bits run on the device; scores and importance are
compared with those of the CPU. Prints a table, writes `gpu_check.json` into `--out`, and exits with 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import hfcompress
from hfcompress.data.lists import RankingCollator, training_lists, with_scores
from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData
from hfcompress.models.load import load_tokenizer
from hfcompress.models.surgery import plan_of_config, pruned_copy
from hfcompress.pruning.calibration import Calibration
from hfcompress.pruning.costs.latency import Deployment, deploy, measure_costs, time_rankers
from hfcompress.pruning.find_plans import find_plans, latency_pairs
from hfcompress.pruning.importance.margins import margin_gradients
from hfcompress.pruning.importance.obs import obs
from hfcompress.rankers.base import Pair, RankerOptions
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import DataStep, PruneStep, SplitLimits
from hfcompress.training.fit import autocast_of
from hfcompress.utils.device import device_title, torch_device

TOLERANCE = 2e-2  # of scores, in standard deviations of those of the CPU
PAIRS, TIMED_PAIRS, ROUNDS = 256, 2048, 5
LEAST_CORRELATION = 0.99  # of importance on the device with that on the CPU

Figures = dict[str, float]


class Checks:
    """Runs checks one after the other, and keeps their figures and times."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def run(self, name: str, work: Callable[[], tuple[bool, Figures]]) -> None:
        """Run a check; an error counts as a failure, and the next one is run all the same."""
        start = time.perf_counter()
        try:
            found_passed, figures = work()
            passed, error = bool(found_passed), ""
        except Exception as found:  # whatever a device raises belongs in the table
            passed, figures, error = False, {}, f"{type(found).__name__}: {str(found).splitlines()[0]}"
        seconds = time.perf_counter() - start
        self.rows.append({"check": name, "passed": passed, "seconds": seconds, **figures, "error": error})
        words = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        print(f"{name:<34} {'ok' if passed else 'FAILED':<7} {seconds:7.1f} s  {words}{error}", flush=True)


def drift(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference between two lists of scores, in standard deviations of the second."""
    return float(np.abs(found - wanted).max() / (wanted.std() or 1.0))


def main() -> int:
    """Run all checks; the exit code is 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a cross-encoder: a folder or a Hub id")
    parser.add_argument("--data", default="api-search", help="data with a train split, as in a recipe")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float16", choices=["float16", "bfloat16"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=200, help="of the recovery")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--calibration-queries", type=int, default=32)
    options = parser.parse_args()
    device = torch_device(options.device)
    print(f"{device_title(device)}, PyTorch {torch.__version__}, {options.dtype}")
    began = time.perf_counter()
    limits = SplitLimits(train=8 * options.steps, dev=50, test=50)
    data = load_data(DataStep(sets=[options.data], max_queries=limits), progress=False)
    tokenizer = load_tokenizer(options.model, options.max_length)
    dense = hfcompress.load_model(options.model, dtype="float32", device=device)
    pairs = latency_pairs(data, TIMED_PAIRS)
    checks = Checks()

    def half(model: PreTrainedModel) -> Deployment:
        return Deployment(options=RankerOptions(batch_tokens=16384, device=str(model.device)), dtype=options.dtype)

    checks.run("scores as on the CPU", lambda: scores(dense, tokenizer, pairs[:PAIRS], half(dense)))
    checks.run("importance as on the CPU", lambda: importance(dense, tokenizer, data, options))
    checks.run("cost table", lambda: costs(dense, tokenizer, pairs, half(dense), options.out))
    student: list[PreTrainedModel] = []
    checks.run("search, half of the MACs", lambda: search(dense, tokenizer, data, options, student))
    if student:
        checks.run(f"recovery, {options.steps} steps", lambda: recovery(dense, student[0], tokenizer, data, options))
        checks.run("student against teacher", lambda: speed(dense, student[0], tokenizer, pairs, half(dense)))
        checks.run("student as on the CPU", lambda: scores(student[0], tokenizer, pairs[:PAIRS], half(dense)))
    passed = all(row["passed"] for row in checks.rows) and bool(student)
    result = {
        "device": device_title(device),
        "torch": torch.__version__,
        "dtype": options.dtype,
        "passed": passed,
        "seconds": time.perf_counter() - began,
        "checks": checks.rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu_check.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{'all checks passed' if passed else 'CHECKS FAILED'} in {result['seconds']:.0f} s")
    return 0 if passed else 1


def scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, pairs: list[Pair], half: Deployment
) -> tuple[bool, Figures]:
    """Scores in fp32 and in 16 bits against those of the CPU."""
    on_cpu = deploy(model, tokenizer, Deployment(), [], Path())
    wanted = on_cpu.score(pairs)
    found = {
        "fp32": drift(TorchRanker(model, tokenizer, options=half.options).score(pairs), wanted),
        half.dtype: drift(deploy(model, tokenizer, half, [], Path()).score(pairs), wanted),
    }
    return max(found.values()) <= TOLERANCE, found


def importance(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: RankingData, options: argparse.Namespace
) -> tuple[bool, Figures]:
    """Rank correlation of the importance of all heads and neurons with that on the CPU."""
    collate = RankingCollator(tokenizer, options.max_length)
    calibration = Calibration(data, collate, options.calibration_queries, seed=0)
    values: list[np.ndarray] = []
    seconds: list[float] = []
    for place in (model, hfcompress.load_model(options.model, dtype="float32")):
        start = time.perf_counter()
        gradients = margin_gradients(place, calibration.fitting, progress=False)
        found = obs(place, calibration.fitting, gradients, progress=False)
        seconds.append(time.perf_counter() - start)
        values.append(torch.cat([*found.heads, *found.ffn]).numpy())
    correlation = float(spearmanr(*values).statistic)
    return correlation >= LEAST_CORRELATION, {"correlation": correlation, "s": seconds[0], "s on the CPU": seconds[1]}


def costs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, pairs: list[Pair], half: Deployment, out: Path
) -> tuple[bool, Figures]:
    """Predicted speed-up of a model without FFNs, from times measured on the device."""
    table = measure_costs(model.config, tokenizer, pairs, half, cache_folder=out / "latency", progress=False)
    plan = plan_of_config(model.config)
    dense = table.of_plan(plan)
    without = table.of_plan(plan.subset((number, range(plan.heads_of), ()) for number in range(len(plan.layers))))
    figures = {"us a document": 1e6 * dense, "without FFN": 1e6 * without}
    return 0 < without <= dense and np.isfinite(dense), figures


def search(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: RankingData,
    options: argparse.Namespace,
    student: list[PreTrainedModel],
) -> tuple[bool, Figures]:
    """A plan with half of the MACs; the pruned model is appended to `student`."""
    step = PruneStep(target_macs=0.5, calibration_queries=options.calibration_queries)
    found = find_plans(
        model,
        tokenizer,
        data,
        step,
        [("target_macs", 0.5)],
        deployment=Deployment(),
        max_length=options.max_length,
        seed=1,
        progress=False,
    ).plans[0]
    student.append(pruned_copy(model, found.plan, found.weights))
    return student[0].device == model.device, {"loss": found.loss, "MACs kept": found.macs_kept}


def recovery(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: RankingData,
    options: argparse.Namespace,
) -> tuple[bool, Figures]:
    """The loss falls over a recovery in the device's own precision."""
    lists = training_lists(data, documents=8, random_negatives=2, seed=0, queries=8 * options.steps)
    ranker = TorchRanker(teacher, tokenizer, options=RankerOptions(batch_tokens=16384))
    lists = with_scores(lists, ranker, progress=False)
    half = autocast_of(student, "auto")
    trainer = hfcompress.RankingDistillationTrainer(
        model=student,
        args=hfcompress.RankingTrainingArguments(
            output_dir=str(options.out / "training"),
            max_steps=options.steps,
            per_device_train_batch_size=8,
            learning_rate=options.learning_rate,
            use_cpu=student.device.type == "cpu",
            single_device=str(student.device),
            bf16=half == torch.bfloat16,
            fp16=half == torch.float16,
            save_strategy="no",
            report_to=[],
            logging_steps=1,
            disable_tqdm=True,
        ),
        train_dataset=lists,
        data_collator=RankingCollator(tokenizer, options.max_length),
    )
    trainer.train()
    trainer.accelerator.unwrap_model(student, keep_fp32_wrapper=False).eval()  # without the autocast of the training
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    part = max(1, len(losses) // 5)
    first, last = float(np.mean(losses[:part])), float(np.mean(losses[-part:]))
    return bool(np.isfinite(losses).all()) and last < first, {"loss before": first, "after": last}


def speed(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    pairs: list[Pair],
    half: Deployment,
) -> tuple[bool, Figures]:
    """The student in 16 bits against the teacher in fp32 and in 16 bits, all on the device."""
    whole = Deployment(options=half.options)
    rankers = [
        deploy(teacher, tokenizer, whole, [], Path()),
        deploy(teacher, tokenizer, half, [], Path()),
        deploy(student, tokenizer, half, [], Path()),
    ]
    fp32, same, pruned = time_rankers(rankers, pairs, ROUNDS)
    figures = {"docs/s": 1 / pruned, "x against fp32": fp32 / pruned, f"x against {half.dtype}": same / pruned}
    return same > pruned or teacher.device.type == "cpu", figures


if __name__ == "__main__":
    sys.exit(main())
