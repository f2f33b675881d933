"""Measure the gain of distillation over training on labels alone, from the same pruned student with the same steps.

    hfcompress run configs/selqa-googleq.yaml --out out/teacher ...   # as in scripts/pruning_bars.py
    hfcompress prune out/teacher/.hfcompress/teacher --data ../shared/data/selqa --data ../shared/data/googleq \
        --out out/half --max-length 128 --target-macs 0.5
    python scripts/recovery_bars.py out/teacher/.hfcompress/teacher out/half --data ../shared/data/selqa \
        --data ../shared/data/googleq

Each seed draws its own lists and order. nDCG@10 is that of the last weights on dev; nothing is chosen by it.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean

from datasets import Dataset

import hfcompress
from hfcompress.data.lists import training_lists, with_scores
from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.metrics import split_quality
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import DataStep, DistillationLoss, Optimization
from hfcompress.training.fit import fit
from hfcompress.training.trainer import RankingDistillationTrainer
from hfcompress.utils.quiet import quiet, silence_libraries

LOSSES = {
    "distillation": DistillationLoss(),
    "bce": DistillationLoss(**dict.fromkeys(("margin_mse", "listwise_kl", "hard"), 0.0), bce=1.0),
}


def dev_ndcg(ranker: hfcompress.Ranker, data: RankingData) -> float:
    """Mean nDCG@10 over the dev queries."""
    return split_quality(ranker, data, "dev")["ndcg@10"]


def trained(
    student: str, lists: Dataset, data: RankingData, loss: str, seed: int, options: argparse.Namespace
) -> float:
    """Train the student with a loss, and evaluate it on dev."""
    model, tokenizer = load_model(student, dtype="float32"), load_tokenizer(student, options.max_length)
    without_dev = replace(data, splits={"train": data.splits["train"]})
    settings = Optimization(epochs=options.epochs, learning_rate=options.learning_rate)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            RankingDistillationTrainer,
            model,
            tokenizer,
            lists=lists,
            data=without_dev,
            settings=settings,
            folder=Path(folder),
            seed=seed,
            distillation_loss=LOSSES[loss],
        )
    return dev_ndcg(TorchRanker(model.eval(), tokenizer), data)


def main() -> None:
    """Train from each seed with each loss, and print nDCG@10 on dev and the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="a cross-encoder")
    parser.add_argument("student", help="the output folder of `hfcompress prune`")
    parser.add_argument("--data", action="append", required=True, help="a folder in BEIR's layout; may be repeated")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--train", type=int, default=1000, help="train queries over all data sets")
    parser.add_argument("--dev", type=int, default=150, help="dev queries per data set")
    parser.add_argument("--candidates", type=int, default=15, help="ranked documents per dev query")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    silence_libraries()
    data = load_data(DataStep(sets=options.data, candidates=options.candidates, max_queries={"dev": options.dev}))
    teacher = hfcompress.load_ranker(options.teacher, "torch", max_length=options.max_length)
    student = hfcompress.load_ranker(options.student, "torch", max_length=options.max_length)
    lines = [f"teacher: {dev_ndcg(teacher, data):.4f}", f"student before training: {dev_ndcg(student, data):.4f}"]
    gains = []
    for seed in range(options.seeds):
        drawn = training_lists(data, 8, 2, seed, queries=options.train)
        with quiet():
            lists = with_scores(drawn, teacher)
        found = {loss: trained(options.student, lists, data, loss, seed, options) for loss in LOSSES}
        gains.append(found["distillation"] - found["bce"])
        lines.append(f"seed {seed}: " + ", ".join(f"{loss} {value:.4f}" for loss, value in found.items()))
        print(lines[-1])
    print(*lines, f"gain: {', '.join(f'{gain:+.4f}' for gain in gains)}; mean {mean(gains):+.4f}", sep="\n")


if __name__ == "__main__":
    main()
