"""Compare settings of recovery by what the same number of training pairs gains, from the same pruned student.

    hfcompress prune TEACHER --data ../shared/data/selqa --data ../shared/data/googleq --out out/quarter \
        --max-length 128 --target-macs 0.25
    python scripts/recovery_options.py TEACHER out/quarter --data ../shared/data/selqa --data ../shared/data/googleq

prints, for each setting, the difference of nDCG@10 to the teacher on dev and, less noisy, the divergence of the
rankings: the mean over dev queries of the Kullback-Leibler divergence between the softmax distributions of teacher and
student over the candidates. The last column but one is the share of the dev pairs that change sides at the teacher's
best threshold, once scale and shift are fitted as a run fits them. `--only` chooses settings by name, and `--seeds 3`
gives the mean of three trainings, which differ in the drawn lists, too; nothing is chosen on test. `--more FOLDER`
draws lists from a further set as well, and `--zero-shot FOLDER` adds a line for the dev queries of a set without lists.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, concatenate_datasets
from scipy.special import log_softmax
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback

from hfcompress.data.lists import training_lists
from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData
from hfcompress.data.teachers import Teacher, with_teacher_scores
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.fidelity import best_threshold
from hfcompress.evaluation.metrics import PRIMARY_METRIC, run_from_scores, scores_of_split, values_of_scores
from hfcompress.evaluation.score_map import fit_score_map
from hfcompress.evaluation.scores import Fp32Scorer, split_scores
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.rankers.bm25 import Bm25Ranker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import DataStep, DistillationLoss, FeatureLoss, Optimization
from hfcompress.training.fit import fit
from hfcompress.training.trainer import RankingDistillationTrainer
from hfcompress.utils.quiet import quiet, silence_libraries

DOCUMENTS = 8
LISTWISE = DistillationLoss(margin_mse=0.2, listwise_kl=1.0)
KL = DistillationLoss(margin_mse=0.0, listwise_kl=1.0)


@dataclass(frozen=True)
class Setting:
    """One way to spend the training pairs."""

    learning_rate: float = 2e-4
    documents: int = DOCUMENTS
    queries_per_batch: int = 8
    loss: DistillationLoss | None = None  # the recipe's default
    features: FeatureLoss | None = None
    average: float | None = None  # decay of an exponential moving average of the weights
    bm25: float | None = None  # weight of BM25 as a second teacher
    share: float = 1.0  # of the training pairs


SETTINGS = {
    "as compress": Setting(),
    "BM25 at 0.25": Setting(bm25=0.25),
    "BM25 at 0.25, half of the pairs": Setting(bm25=0.25, share=0.5),
    "BM25 at 1": Setting(bm25=1.0),
    "learning rate 1e-4": Setting(learning_rate=1e-4),
    "learning rate 4e-4": Setting(learning_rate=4e-4),
    "learning rate 8e-4": Setting(learning_rate=8e-4),
    "batches of 4 lists": Setting(queries_per_batch=4),
    "4 documents of twice as many queries": Setting(documents=4, queries_per_batch=16),
    "listwise loss": Setting(loss=LISTWISE),
    "mse at 0.05": Setting(loss=DistillationLoss(mse=0.05)),
    "mse at 0.1": Setting(loss=DistillationLoss(mse=0.1)),
    "mse at 0.3": Setting(loss=DistillationLoss(mse=0.3)),
    "KL alone": Setting(loss=KL),
    "KL, mse at 0.05": Setting(loss=KL.model_copy(update={"mse": 0.05})),
    "KL, mse at 0.1": Setting(loss=KL.model_copy(update={"mse": 0.1})),
    "KL, mse at 0.3": Setting(loss=KL.model_copy(update={"mse": 0.3})),
    "averaged weights": Setting(average=0.98),
    "averaged weights, 4e-4": Setting(learning_rate=4e-4, average=0.98),
    "hidden states": Setting(features=FeatureLoss(hidden=1.0, relation=0.0, decay=1.0)),
}


class Averaging(TrainerCallback):
    """Ends a training with a moving average of its weights."""

    def __init__(self, decay: float):
        self.decay = decay
        self.averaged: AveragedModel | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        """Add the weights after a step."""
        model: nn.Module = context["model"]
        if self.averaged is None:
            self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(self.decay))
        self.averaged.update_parameters(model)

    def on_train_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        """Put the average into the model."""
        assert self.averaged is not None
        context["model"].load_state_dict(self.averaged.module.state_dict())


def drawn_lists(data: RankingData, documents: int, count: int, seed: int) -> Dataset:
    """Draw lists of random queries: of each one once, then, with other documents, of each a second time."""
    rounds: list[Dataset] = []
    while (missing := count - sum(map(len, rounds))) > 0:
        lists = training_lists(data, documents, 2, seed + len(rounds)).shuffle(seed=seed)
        rounds.append(lists.select(range(min(missing, len(lists)))))
    return concatenate_datasets(rounds)


def train(
    student: str, teacher: str, lists: Dataset, data: RankingData, setting: Setting, length: int, seed: int
) -> TorchRanker:
    """Train the student on all lists once."""
    model, tokenizer = load_model(student, dtype="float32"), load_tokenizer(student, length)
    optimization = Optimization(learning_rate=setting.learning_rate, queries_per_batch=setting.queries_per_batch)
    features: dict[str, Any] = {}
    if setting.features:
        features = {"feature_loss": setting.features, "teacher": load_model(teacher, dtype="float32")}
    with tempfile.TemporaryDirectory() as folder:
        fit(
            RankingDistillationTrainer,
            model,
            tokenizer,
            lists=lists,
            data=replace(data, splits={"train": data.splits["train"]}),
            settings=optimization,
            folder=Path(folder),
            seed=seed,
            callbacks=[Averaging(setting.average)] if setting.average else [],
            distillation_loss=setting.loss or DistillationLoss(),
            **features,
        )
    return TorchRanker(model.eval(), tokenizer)


def divergence(teacher: dict[str, list[float]], student: dict[str, list[float]]) -> float:
    """Mean Kullback-Leibler divergence of the student's distribution over candidates from the teacher's."""
    found = []
    for query, scores in teacher.items():
        expected, given = log_softmax(scores), log_softmax(student[query])
        found.append(float((np.exp(expected) * (expected - given)).sum()))
    return float(np.mean(found))


def changed_sides(teacher: dict[str, list[float]], student: dict[str, list[float]], data: RankingData) -> float:
    """Share of the dev pairs that change sides at the teacher's best threshold, after the fit of scale and shift."""
    dev = data.split("dev")
    level = best_threshold(dev.qrels, run_from_scores(dev.candidates, teacher), data.relevant_from)
    fitted = fit_score_map([student[query] for query in teacher], list(teacher.values()), "dev")
    if level is None or fitted is None:
        return float("nan")
    before = np.concatenate(list(teacher.values()))
    after = fitted.scale * np.concatenate([student[query] for query in teacher]) + fitted.shift
    return float(np.mean((before >= level) != (after >= level)))


class Figures(NamedTuple):
    """A student compared with its teacher.

    Attributes:
        differences: nDCG@10 less the teacher's, one value a query.
        divergence: Divergence of the rankings.
        sides: Share of the pairs that change sides at the teacher's best threshold.
    """

    differences: np.ndarray
    divergence: float
    sides: float


class Comparison:
    """Measures students on the dev queries of a data set, against the teacher."""

    def __init__(self, name: str, data: RankingData, teacher: str, length: int):
        self.name, self.data = name, data
        self.known = split_scores(Candidate.teacher(teacher, "teacher"), data, "dev", max_length=length)
        rows = values_of_scores(self.known, data, "dev")
        self.quality = {query: row[PRIMARY_METRIC] for query, row in rows.items()}

    def measured(self, student: TorchRanker) -> Figures:
        """Compare a student with the teacher."""
        scores = scores_of_split(student, self.data, "dev")
        rows = values_of_scores(scores, self.data, "dev")
        differences = [row[PRIMARY_METRIC] - self.quality[query] for query, row in rows.items()]
        return Figures(
            np.array(differences), divergence(self.known, scores), changed_sides(self.known, scores, self.data)
        )


def main() -> None:
    """Train with each setting, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="a cross-encoder")
    parser.add_argument("student", help="the output folder of `hfcompress prune`")
    parser.add_argument("--data", action="append", required=True, help="a folder in BEIR's layout; may be repeated")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=12_000, help="training pairs")
    parser.add_argument("--dev", type=int, default=250, help="dev queries per data set")
    parser.add_argument("--candidates", type=int, default=10, help="ranked documents per dev query")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each setting")
    parser.add_argument("--more", action="append", default=[], help="a set for lists only; may be repeated")
    parser.add_argument("--zero-shot", action="append", default=[], help="a set for dev only; may be repeated")
    parser.add_argument("--only", action="append", choices=sorted(SETTINGS), help="a setting; may be repeated")
    options = parser.parse_args()
    silence_libraries()

    def loaded(sets: list[str], dev: int) -> RankingData:
        return load_data(DataStep(sets=sets, candidates=options.candidates, max_queries={"dev": dev}))

    scorer = Fp32Scorer(options.teacher, options.max_length)
    train_data = loaded(options.data + options.more, 1)
    tests = [
        Comparison(name, data, options.teacher, options.max_length)
        for name, data in [("", loaded(options.data, options.dev))]
        + [(Path(each).name, loaded([each], options.dev)) for each in options.zero_shot]
    ]
    print(f"{'setting':38} {'difference':>10} {'(s.e.)':>8} {'divergence':>10} {'sides':>7} {'pairs/s':>8}", flush=True)

    def trained(setting: Setting, seed: int) -> tuple[list[Figures], float]:
        count = ceil(setting.share * options.pairs / setting.documents)
        lists = drawn_lists(train_data, setting.documents, count, seed + 1)
        teachers = [Teacher(scorer)]
        if setting.bm25:
            ranker = Bm25Ranker(train_data.corpus, None, train_data.language)
            teachers.append(Teacher(ranker, weight=setting.bm25))
        with quiet():
            scored = with_teacher_scores(lists, teachers)
        start = time.perf_counter()
        student = train(options.student, options.teacher, scored, train_data, setting, options.max_length, seed)
        rate = count * setting.documents / (time.perf_counter() - start)
        return [test.measured(student) for test in tests], rate

    def show(name: str, differences: np.ndarray, found: float, sides: float, rate: float | None = None) -> None:
        error = differences.std() / len(differences) ** 0.5
        end = f"{rate:8.1f}" if rate else ""
        print(f"{name:38} {differences.mean():+10.4f} {error:8.4f} {found:10.4f} {sides:7.2%} {end}", flush=True)

    def show_all(name: str, results: list[list[Figures]], rate: float | None = None) -> None:
        """Print the mean of several trainings, a line for each test."""
        for test, found in zip(tests, zip(*results, strict=True), strict=True):
            differences, divergences, sides = (np.mean(column, axis=0) for column in zip(*found, strict=True))
            label = f"  on {test.name}" if test.name else name
            show(label, differences, float(divergences), float(sides), None if test.name else rate)
            if len(found) > 1:
                print(f"{'':38} by seed: {', '.join(f'{each.differences.mean():+.4f}' for each in found)}", flush=True)

    tokenizer = load_tokenizer(options.student, options.max_length)
    untrained = TorchRanker(load_model(options.student, "float32").eval(), tokenizer)
    show_all("before training", [[test.measured(untrained) for test in tests]])
    for name in options.only or SETTINGS:
        found, rates = zip(*(trained(SETTINGS[name], seed) for seed in range(options.seeds)), strict=True)
        show_all(name, list(found), float(np.mean(rates)))


if __name__ == "__main__":
    main()
