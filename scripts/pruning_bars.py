"""Measure loss and speed of one-shot pruning on a cross-encoder of your own. All figures are printed at the end.

The teacher of the published figures (10 minutes of training on 2 cores; the data sets are not part of this repository):

    hfcompress run configs/selqa-googleq.yaml --out out/teacher --set prune=null --set recover=null \
        --set quantize.artifacts=[] --set 'data.max_queries={dev: 60, test: 200}' \
        --set teacher.train.hard_negatives=2 --set teacher.train.random_negatives=2 \
        --set teacher.train.optimization.learning_rate=1.2e-4 --set teacher.train.optimization.evaluations=2
    python scripts/pruning_bars.py out/teacher/.hfcompress/teacher --data ../shared/data/selqa \
        --data ../shared/data/googleq --max-length 128

Use `--split dev` to choose settings, e.g. `--damping`, and the test split only for final figures.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from statistics import mean

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.data.lists import RankingCollator
from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.metrics import split_quality
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.models.macs import encoder_macs
from hfcompress.models.surgery import current_plan, pruned_copy
from hfcompress.pruning.calibration import Calibration
from hfcompress.pruning.costs.latency import Deployment, deploy, time_rankers
from hfcompress.pruning.find_plans import (
    LATENCY_PAIRS,
    FoundPlans,
    deployment_of,
    find_plans,
    latency_pairs,
    measure_importance,
)
from hfcompress.pruning.importance.margins import margin_gradients
from hfcompress.pruning.importance.obs import DAMPING, obs
from hfcompress.pruning.search.explicit import plan_for_shares
from hfcompress.quantization.artifacts import calibration_batches
from hfcompress.rankers.base import BatchedRanker, RankerOptions
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import DataStep, PruneStep, Target
from hfcompress.utils.quiet import silence_libraries

UNIFORM = {
    "heads": 2 / 3,
    "ffn": 0.4167,
    "spread": "uniform",
}  # half of MiniLM's MACs: 8 of 12 heads, 640 of 1536
SPEEDUPS = (1.15, 1.5, 2.0, 3.0, 4.0)
ROUNDS = 7


class Bench:
    """Model, data and the queries on which quality is measured."""

    def __init__(self, options: argparse.Namespace) -> None:
        limits = {"train": options.train, "dev": 1, "test": 1, options.split: options.test}
        self.options = options
        self.data: RankingData = load_data(DataStep(sets=options.data, candidates=15, max_queries=limits))
        self.model: PreTrainedModel = load_model(options.teacher, dtype="float32")
        self.tokenizer: PreTrainedTokenizerFast = load_tokenizer(options.teacher, options.max_length)

    def ndcg(self, ranker: BatchedRanker) -> float:
        """Mean nDCG@10 over the queries of the split."""
        return split_quality(ranker, self.data, self.options.split)["ndcg@10"]

    def torch(self, model: PreTrainedModel) -> TorchRanker:
        """A model in PyTorch."""
        return TorchRanker(model, self.tokenizer)

    def find_plans(self, step: PruneStep, targets: list[Target], deployment: Deployment, seed: int) -> FoundPlans:
        """Plans as `hfcompress prune` finds them."""
        return find_plans(
            self.model,
            self.tokenizer,
            self.data,
            step,
            targets,
            deployment=deployment,
            max_length=self.options.max_length,
            seed=seed,
        )


def quality(bench: Bench) -> dict[str, str]:
    """One-shot loss at half of the encoder's MACs, for each method and seed of calibration pairs."""
    dense = bench.ndcg(bench.torch(bench.model))
    losses: dict[str, list[float]] = {}
    current = current_plan(bench.model)
    for seed in bench.options.seeds:
        collate = RankingCollator(bench.tokenizer, bench.options.max_length)
        calibration = Calibration(bench.data, collate, bench.options.queries, seed)
        for method in ("magnitude", "fisher", "obs"):
            gradients = margin_gradients(bench.model, calibration.fitting, seed) if method == "obs" else None
            if method == "obs":
                importance = obs(bench.model, calibration.fitting, gradients, bench.options.damping)
            else:
                importance = measure_importance(method, bench.model, calibration)
            plan = plan_for_shares(importance, current, PruneStep(importance=method, **UNIFORM))
            share = encoder_macs(bench.model.config, plan) / encoder_macs(bench.model.config, current)
            pruned = pruned_copy(bench.model, plan, importance.weights(plan))
            losses.setdefault(f"uniform {method}", []).append(1 - bench.ndcg(bench.torch(pruned)) / dense)
            print(f"seed {seed} uniform {method}: {losses[f'uniform {method}'][-1]:+.4f} at {share:.3f} of the MACs")
        half: dict[str, float] = {"target_macs": 0.5}
        for name, budget, sequential in (
            ("uniform obs, sequential update", UNIFORM, True),
            ("searched obs", half, False),
            ("searched obs, sequential update", half, True),
        ):
            step = PruneStep.of({**budget, "calibration_queries": bench.options.queries, "sequential": sequential})
            (found,) = bench.find_plans(step, [step.target] if step.target else [], Deployment(), seed).plans
            pruned = pruned_copy(bench.model, found.plan, found.weights)
            losses.setdefault(name, []).append(1 - bench.ndcg(bench.torch(pruned)) / dense)
            print(f"seed {seed} {name}: {losses[name][-1]:+.4f}")
    queries = len(bench.data.split(bench.options.split).candidates)
    figures = {"dense nDCG@10": f"{dense:.4f} over {queries} {bench.options.split} queries"}
    for name, values in losses.items():
        each = ", ".join(f"{value:.1%}" for value in values)
        figures[f"loss at half the MACs, {name}"] = f"{mean(values):.1%} (seeds: {each})"
    return figures


def speed(bench: Bench) -> dict[str, str]:
    """Cost of the search, predicted against measured speed-ups, and quality of the int8 models."""
    step = PruneStep(target_speedup=2, runtime=bench.options.runtime, calibration_queries=bench.options.queries)
    deployment = deployment_of(step, [], RankerOptions(), 15)
    start = time.perf_counter()
    collate = RankingCollator(bench.tokenizer, bench.options.max_length)
    fitting = Calibration(bench.data, collate, bench.options.queries, bench.options.seeds[0]).fitting
    obs(bench.model, fitting, margin_gradients(bench.model, fitting, bench.options.seeds[0]))
    alone = time.perf_counter() - start
    start = time.perf_counter()
    targets: list[Target] = [("target_speedup", value) for value in SPEEDUPS]
    plans = bench.find_plans(step, targets, deployment, bench.options.seeds[0]).plans
    figures = {
        "seconds for importance alone": f"{alone:.0f} (obs)",
        "seconds for all plans": f"{time.perf_counter() - start:.0f} "
        f"({', '.join(f'{value:g}x' for value in SPEEDUPS)}; {8 * step.calibration_queries} pairs)",
        "peak memory": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB",
    }
    pairs = latency_pairs(bench.data, LATENCY_PAIRS)
    calibration = calibration_batches(bench.tokenizer, pairs[::8])
    full = Deployment(deployment.runtime, deployment.quantization, deployment.options, None, first_token=False)
    with tempfile.TemporaryDirectory() as folder:
        rankers = [
            deploy(bench.model, bench.tokenizer, full, calibration, Path(folder, "full")),
            deploy(bench.model, bench.tokenizer, deployment, calibration, Path(folder, "dense")),
        ]
        for number, found in enumerate(plans):
            pruned = pruned_copy(bench.model, found.plan, found.weights)
            rankers.append(deploy(pruned, bench.tokenizer, deployment, calibration, Path(folder, str(number))))
        seconds = time_rankers(rankers, pairs, ROUNDS)
        quality = [bench.ndcg(ranker) for ranker in rankers]
    figures["lossless export of the last layer"] = (
        f"{seconds[0] / seconds[1]:.2f}x, nDCG@10 {quality[1]:.4f} against {quality[0]:.4f}"
    )
    for found, clock, value in zip(plans, seconds[2:], quality[2:], strict=True):
        measured = seconds[1] / clock
        assert found.target and found.speedup
        figures[f"{bench.options.runtime}, target {found.target[1]:g}x"] = (
            f"predicted {found.speedup:.2f}x, measured {measured:.2f}x ({found.speedup / measured - 1:+.1%}); with "
            f"the lossless export {seconds[0] / clock:.2f}x; nDCG@10 {value:.4f} ({value / quality[0] - 1:+.1%})"
        )
    return figures


def main() -> None:
    """Measure, and print all figures last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="a cross-encoder")
    parser.add_argument("--data", action="append", required=True, help="a folder in BEIR's layout; repeatable")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of calibration pairs")
    parser.add_argument("--queries", type=int, default=64, help="calibration queries of 8 documents")
    parser.add_argument("--train", type=int, default=500, help="train queries of each set to draw them from")
    parser.add_argument("--test", type=int, default=100, help="test queries of each set")
    parser.add_argument("--split", default="test", choices=["dev", "test"], help="dev to choose by, test once")
    parser.add_argument("--damping", type=float, default=DAMPING, help="damping of obs without a search")
    parser.add_argument("--runtime", default="onnxruntime", choices=["torch", "onnxruntime", "openvino"])
    parser.add_argument("--only", choices=["quality", "speed"], help="leave out the other half")
    options = parser.parse_args()
    silence_libraries()
    bench = Bench(options)
    figures: dict[str, str] = {}
    if options.only != "quality":
        figures |= speed(bench)
    if options.only != "speed":
        figures |= quality(bench)
    print()
    for name, figure in figures.items():
        print(f"{name}: {figure}")


if __name__ == "__main__":
    main()
