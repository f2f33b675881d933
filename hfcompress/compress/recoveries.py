"""Recipes of recoveries, short recoveries of the models of a family, and the measured cost of training one."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset, load_from_disk
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from hfcompress.compress.budget import DOCUMENTS, EVALUATIONS, GENERAL_SHARE, RecoverySize, patience
from hfcompress.compress.context import CompressContext
from hfcompress.compress.family import Family, FamilyMember
from hfcompress.compress.step_results import RESULT, cached_value
from hfcompress.data.also import mixed
from hfcompress.evaluation.metrics import split_values
from hfcompress.evaluation.results import primary_values
from hfcompress.evaluation.significance import compare
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import Optimization, Recipe, RecoverStep
from hfcompress.report.delta import Delta
from hfcompress.report.report import Artifact
from hfcompress.steps.context import RunContext
from hfcompress.steps.recover import draw_lists
from hfcompress.steps.workspace import StepFolder
from hfcompress.training.callbacks import without_autocast
from hfcompress.training.fit import fit
from hfcompress.training.trainer import RankingDistillationTrainer
from hfcompress.utils.files import write_text
from hfcompress.utils.settings import Closed

LEARNING_RATE = 2e-4
PROBE_LISTS = 96
FIRST_STEPS = 2  # of a training, which are slower and not timed
SHARE_DIGITS = 6  # of `also_share` in the recipe, which then stands for the same number of lists


class ShortRecovery(Closed):
    """Result of a short recovery.

    Attributes:
        delta: Difference to the teacher on dev, in fp32 PyTorch.
        seconds: Duration, the evaluation included.
        pair_seconds: Seconds of training on one pair.
    """

    delta: Delta
    seconds: float
    pair_seconds: float


def optimization(documents: int) -> Optimization:
    """Settings of a recovery, for one epoch.

    Longer lists make smaller batches of lists, so that a step has as many pairs.

    Args:
        documents: Documents of a list.
    """
    lists = max(1, Optimization().queries_per_batch * DOCUMENTS // documents)
    return Optimization(learning_rate=LEARNING_RATE, queries_per_batch=lists)


def recovery(context: CompressContext, size: RecoverySize) -> Recipe:
    """The shared settings of all trials, with a recovery; a pruning step is to be added."""
    length = {"epochs": size.epochs, "evaluations": EVALUATIONS, "patience": patience(size.epochs)}
    step = context.supervision.model_copy(
        update={
            "documents": size.documents,
            "queries": size.lists,
            "pseudo_queries": max(context.supervision.pseudo_queries, size.lists - context.train_queries),
            "also_share": round(size.also / size.total, SHARE_DIGITS),
            "optimization": optimization(size.documents).model_copy(update=length),
        }
    )
    return context.recipe.model_copy(update={"recover": step})


def short_recovery(
    context: CompressContext,
    family: Family,
    member: FamilyMember,
    teacher: Artifact,
    scored: StepFolder,
    lists: int,
    documents: int,
) -> ShortRecovery:
    """Train a pruned model on the first lists for one epoch, and compare it with its teacher on dev.

    Args:
        context: The call.
        family: The family of the model.
        member: The model.
        teacher: Measurements of the teacher on dev.
        scored: Lists with the teacher's scores.
        lists: Number of lists to train on.
        documents: Documents of a list.
    """

    def work(folder: Path, partial: Path) -> None:
        start = time.perf_counter()
        found = load_from_disk(str(scored.path))
        model, tokenizer, pair_seconds = _trained(context, member, found, lists, documents)
        with without_autocast(model):
            values = split_values(TorchRanker(model, tokenizer, options=context.options), context.data, "dev")
        step = context.recipe.evaluate
        delta = compare(
            teacher.per_query,
            primary_values(values),
            step.margin,
            step.confidence,
            seed=context.recipe.seed,
            set_of=context.data.set_of,
        )
        seconds = time.perf_counter() - start
        result = ShortRecovery(delta=delta, seconds=seconds, pair_seconds=pair_seconds)
        write_text(folder / RESULT, result.model_dump_json())

    settings = context.recipe.evaluate.model_dump(mode="json", include={"margin", "confidence"})
    inputs = [family.fingerprint, scored.fingerprint, lists, member.pruning_speedup, settings]
    name = f"recovered{member.pruning_speedup:g}on{lists}"
    folder = context.workspace.step(name, inputs, work, f"train {member.label} on {lists} lists").path
    return ShortRecovery.model_validate_json((folder / RESULT).read_bytes())


def measured_rate(context: CompressContext, family: Family, member: FamilyMember) -> float:
    """Seconds of training on one pair, measured on a few lists before any are scored.

    Args:
        context: The call.
        family: The family of the model.
        member: The model.
    """

    def measure() -> float:
        general = round(GENERAL_SHARE * PROBE_LISTS) if context.also else 0
        recipe = recovery(context, RecoverySize(PROBE_LISTS - general, 1, general))
        run = RunContext(recipe, context.data, context.workspace, context.progress, context.also)
        own, also = draw_lists(run)
        lists = mixed(own, also) if also else own
        scores = [[float(number) for number in range(len(row))] for row in lists["documents"]]  # take the same time
        return _trained(context, member, lists.add_column("teacher_scores", scores), PROBE_LISTS, DOCUMENTS)[2]

    return float(cached_value(context.workspace, "rate", [family.fingerprint, member.pruning_speedup], measure))


class _StepTimes(TrainerCallback):
    """Times of the beginning of a training and of the ends of its steps."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.marks.append(time.perf_counter())

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.marks.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Seconds of a step, the first ones and the last one left out where there are enough."""
        marks = self.marks[FIRST_STEPS:-1] if len(self.marks) > FIRST_STEPS + 2 else self.marks
        return (marks[-1] - marks[0]) / (len(marks) - 1)


def _trained(
    context: CompressContext, member: FamilyMember, scored: Dataset, lists: int, documents: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, float]:
    """Train a model for one epoch, without evaluations and without a checkpoint to resume from.

    Returns:
        The model, its tokenizer, and the seconds of training on one pair.
    """
    rows = Dataset.from_list(scored.select(range(min(lists, len(scored)))).to_list())
    model = load_model(str(member.folder), dtype="float32", device=context.options.device)
    tokenizer = load_tokenizer(str(member.folder), context.max_length)
    splits = {name: split for name, split in context.data.splits.items() if name != "dev"}
    times, settings = _StepTimes(), optimization(documents)
    with TemporaryDirectory(dir=context.workspace.folder, prefix="training-") as folder:
        fit(
            RankingDistillationTrainer,
            model,
            tokenizer,
            lists=rows,
            data=replace(context.data, splits=splits),
            settings=settings,
            folder=Path(folder),
            seed=context.recipe.seed,
            progress=context.progress,
            callbacks=[times],
            distillation_loss=RecoverStep().loss,
        )
    pairs = mean(map(len, rows["documents"])) * settings.queries_per_batch
    return model, tokenizer, times.seconds / pairs
