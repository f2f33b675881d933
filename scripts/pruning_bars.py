"""Measure what pruning promises, on a cross-encoder of your own, and print every figure last.

The teacher of the published figures (10 minutes of training on 2 cores; the data sets are not part of this repository):

    hfcompress run configs/selqa-googleq.yaml --out out/teacher --set prune=null --set recover=null \
        --set quantize.artifacts=[] --set 'data.max_queries={dev: 60, test: 200}' \
        --set teacher.train.hard_negatives=2 --set teacher.train.random_negatives=2 \
        --set teacher.train.optimization.learning_rate=1.2e-4 --set teacher.train.optimization.evaluations=2
    python scripts/pruning_bars.py out/teacher/.hfcompress/teacher --data ../shared/data/selqa \
        --data ../shared/data/googleq --max-length 128

With `--split dev` it serves to choose, for instance `--damping`; the test split is for the end of every choice.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from statistics import mean

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.calibration import Calibration
from hfcompress.data.lists import RankingCollator
from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.metrics import split_quality
from hfcompress.importance.margins import margin_gradients
from hfcompress.importance.obs import DAMPING, obs
from hfcompress.latency import Deployment, deploy, time_rankers
from hfcompress.models import load_model, load_tokenizer
from hfcompress.pruning import LATENCY_PAIRS, Family, deployment_of, latency_pairs, measure_importance, prune_family
from hfcompress.quantization.artifacts import calibration_batches
from hfcompress.quiet import silence_libraries
from hfcompress.rankers.base import BatchedRanker, RankerOptions
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import DataStep, PruneStep
from hfcompress.search.explicit import plan_for_budget
from hfcompress.surgery import current_plan, encoder_flops, pruned_copy

UNIFORM = {
    "heads": 2 / 3,
    "ffn": 0.4167,
    "spread": "uniform",
}  # half of MiniLM's multiply-adds: 8 of 12 heads, 640 of 1536
SPEEDUPS = (1.15, 1.5, 2.0, 3.0, 4.0)
ROUNDS = 7


class Bench:
    """Model, data and the test queries that all figures of quality are measured on."""

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
        return TorchRanker(model, self.tokenizer, lambda logits: logits)

    def family(self, step: PruneStep, targets: list[tuple[str, float]], deployment: Deployment, seed: int) -> Family:
        """What the product does."""
        return prune_family(
            self.model,
            self.tokenizer,
            self.data,
            step,
            targets,
            deployment,
            self.options.max_length,
            seed,
            say=print,
        )


def quality(bench: Bench) -> dict[str, str]:
    """One-shot loss at half the encoder's multiply-adds, for each method, over seeds of calibration pairs."""
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
            plan = plan_for_budget(importance, current, PruneStep(importance=method, **UNIFORM))
            share = encoder_flops(bench.model.config, plan) / encoder_flops(bench.model.config, current)
            pruned = pruned_copy(bench.model, plan, importance.weights(plan))
            losses.setdefault(f"uniform {method}", []).append(1 - bench.ndcg(bench.torch(pruned)) / dense)
            print(f"seed {seed} uniform {method}: {losses[f'uniform {method}'][-1]:+.4f} at {share:.3f} multiply-adds")
        half: dict[str, float] = {"target_flops": 0.5}
        for name, budget, sequential in (
            ("uniform obs, settled in sequence", UNIFORM, True),
            ("searched obs", half, False),
            ("searched obs, settled in sequence", half, True),
        ):
            step = PruneStep.of({**budget, "calibration_queries": bench.options.queries, "sequential": sequential})
            member = bench.family(step, [step.target] if step.target else [], Deployment(), seed).members[0]
            pruned = pruned_copy(bench.model, member.plan, member.weights)
            losses.setdefault(name, []).append(1 - bench.ndcg(bench.torch(pruned)) / dense)
            print(f"seed {seed} {name}: {losses[name][-1]:+.4f}")
    queries = len(bench.data.split(bench.options.split).candidates)
    figures = {"dense nDCG@10": f"{dense:.4f} over {queries} {bench.options.split} queries"}
    for name, values in losses.items():
        each = ", ".join(f"{value:.1%}" for value in values)
        figures[f"loss at half the multiply-adds, {name}"] = f"{mean(values):.1%} (seeds: {each})"
    return figures


def speed(bench: Bench) -> dict[str, str]:
    """The family's cost, its predictions against the clock, and the quality of the int8 models."""
    step = PruneStep(target_speedup=2, runtime=bench.options.runtime, calibration_queries=bench.options.queries)
    deployment = deployment_of(step, [], RankerOptions(), 15)
    start = time.perf_counter()
    collate = RankingCollator(bench.tokenizer, bench.options.max_length)
    fitting = Calibration(bench.data, collate, bench.options.queries, bench.options.seeds[0]).fitting
    obs(bench.model, fitting, margin_gradients(bench.model, fitting, bench.options.seeds[0]))
    alone = time.perf_counter() - start
    start = time.perf_counter()
    targets = [("target_speedup", value) for value in SPEEDUPS]
    family = bench.family(step, targets, deployment, bench.options.seeds[0])
    figures = {
        "seconds for importance alone": f"{alone:.0f} (obs)",
        "seconds for the whole family": f"{time.perf_counter() - start:.0f} "
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
        for number, member in enumerate(family.members):
            pruned = pruned_copy(bench.model, member.plan, member.weights)
            rankers.append(deploy(pruned, bench.tokenizer, deployment, calibration, Path(folder, str(number))))
        seconds = time_rankers(rankers, pairs, ROUNDS)
        quality = [bench.ndcg(ranker) for ranker in rankers]
    figures["lossless export of the last layer"] = (
        f"{seconds[0] / seconds[1]:.2f}x, nDCG@10 {quality[1]:.4f} against {quality[0]:.4f}"
    )
    for member, clock, value in zip(family.members, seconds[2:], quality[2:], strict=True):
        measured = seconds[1] / clock
        assert member.target and member.speedup
        figures[f"{bench.options.runtime}, target {member.target[1]:g}x"] = (
            f"predicted {member.speedup:.2f}x, measured {measured:.2f}x ({member.speedup / measured - 1:+.1%}); with "
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
    parser.add_argument("--damping", type=float, default=DAMPING, help="of obs, where it is not searched")
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
