"""Rounds of short recoveries with successive halving, and the choice of a pruned model for the full recovery."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import Dataset, load_from_disk

from hfcompress import pipeline
from hfcompress.compress import budget
from hfcompress.compress.budget import RecoverySize, TimeBudget
from hfcompress.compress.choose import DeploymentForm
from hfcompress.compress.context import CompressContext, quality
from hfcompress.compress.family import Family, FamilyMember, prune_family
from hfcompress.compress.general_text import add_general_text
from hfcompress.compress.step_results import RESULT
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.recipe import Optimization, Recipe, RecoverStep
from hfcompress.report.report import Artifact
from hfcompress.steps.workspace import StepFolder
from hfcompress.training.fit import fit
from hfcompress.training.trainer import RankingDistillationTrainer
from hfcompress.utils.files import write_text

logger = logging.getLogger(__name__)

ENOUGH = 0.5  # share of the largest loss allowed: a loss below it after a short recovery is small enough
LEARNING_RATE = 2e-4
SHARE_DIGITS = 6  # of `also_share` in the recipe, which then stands for the same number of lists
NEAR = 0.02  # calibration loss; about that of plain int8 of unpruned models


@dataclass(frozen=True)
class Choice:
    """How far to prune and how to recover.

    Attributes:
        member: The pruned model.
        recovery: Size of the recovery; no lists for none.
        stages: Stages of pruning and recovery.
    """

    member: FamilyMember
    recovery: RecoverySize
    stages: int = 1

    @property
    def pruning_speedup(self) -> float:
        """Target speed-up by pruning."""
        return self.member.pruning_speedup


def search(
    context: CompressContext, pruning_speedups: tuple[float, ...], teacher: Artifact, form: DeploymentForm
) -> Choice:
    """Search a family, give its models short recoveries in rounds, and choose one for the full recovery."""
    add_general_text(context)
    family = prune_family(context, pruning_speedups, teacher, form)
    models, max_loss = family.models, context.goal.max_loss
    _warn_of_few_queries(context, [model.artifact for model in models.values()])

    def as_it_is(speedup: float, reason: str) -> Choice:
        context.record_decision(models[speedup].label, f"chosen as it is: {reason}")
        return Choice(models[speedup], RecoverySize(0, 0))

    losses = {speedup: quality(teacher) - quality(model.artifact) for speedup, model in models.items()}
    rates = {speedup: budget.pair_seconds(context.rate, model.macs_kept) for speedup, model in models.items()}
    if len(pruning_speedups) == 1 and (speedup := _near(models, losses, max_loss)):
        return as_it_is(speedup, f"as near to the teacher as int8 is (loss {models[speedup].calibration_loss:.3f})")
    time_budget = TimeBudget(context, family.fingerprint)
    size = time_budget.size(rates)
    if not size.lists:
        return as_it_is(budget.fastest_within(losses, max_loss), "no time is left for a recovery")
    scored = _scored_lists(context, size)
    for number in range(budget.ROUNDS):
        short = 0 if len(losses) == 1 else time_budget.short(number, [rates[speedup] for speedup in losses], size)
        if not short:
            break
        for speedup in losses:
            result = _recovered(context, family, models[speedup], scored, short, size.documents)
            losses[speedup], rates[speedup] = quality(teacher) - result["ndcg"], result["seconds"] / result["pairs"]
            name = f"{models[speedup].label}, {short} lists"
            context.record(name, "short recovery", speedup, result["ndcg"], quality(teacher), result["seconds"])
        kept = budget.survivors(losses, ENOUGH * max_loss)
        for speedup, loss in losses.items():
            decision = "kept" if speedup in kept else "dropped: another model is more promising"
            context.record_decision(
                f"{models[speedup].label}, {short} lists", f"difference {-loss:+.4f} on dev: {decision}"
            )
        losses = {speedup: losses[speedup] for speedup in kept}
    speedup = budget.fastest_within(losses, max_loss)
    stages, epochs = time_budget.stages(speedup, models[speedup].macs_kept, rates[speedup], size)
    if not epochs:
        return as_it_is(speedup, "no time is left for a recovery")
    return Choice(models[speedup], replace(size, epochs=epochs), stages)


def recovery(context: CompressContext, size: RecoverySize) -> Recipe:
    """The shared settings of all trials, with a recovery; a pruning step is to be added."""
    step = context.supervision.model_copy(
        update={
            "documents": size.documents,
            "queries": size.lists,
            "pseudo_queries": max(context.supervision.pseudo_queries, size.lists - context.train_queries),
            "also_share": round(size.also / size.total, SHARE_DIGITS),
            "optimization": _optimization(size.documents, epochs=size.epochs, evaluations=2),
        }
    )
    return context.recipe.model_copy(update={"recover": step})


def _optimization(documents: int, epochs: int = 1, evaluations: int = 1) -> Optimization:
    """Settings of a training; longer lists make smaller batches of lists, so that a step has as many pairs."""
    lists = max(1, Optimization().queries_per_batch * budget.DOCUMENTS // documents)
    return Optimization(epochs=epochs, learning_rate=LEARNING_RATE, evaluations=evaluations, queries_per_batch=lists)


def _near(models: Mapping[float, FamilyMember], losses: Mapping[float, float], max_loss: float) -> float | None:
    """Speed-up of the fastest model that needs no recovery; None if there is none.

    Training also moves a model away from its teacher. If hardly anything was lost, there is little to recover, and
    training makes the difference to the teacher on single queries larger and harder to tell from the margin.
    """
    near = [
        speedup for speedup, loss in losses.items() if loss <= max_loss and models[speedup].calibration_loss <= NEAR
    ]
    return max(near, default=None)


def _scored_lists(context: CompressContext, size: RecoverySize) -> StepFolder:
    """Training lists with the teacher's scores, as the final run will use them, too."""
    recipe = recovery(context, replace(size, epochs=1))
    run = pipeline.RunContext(recipe, context.data, context.workspace, context.progress, context.also)
    return pipeline.score(run, pipeline.obtain_teacher(run))


def _warn_of_few_queries(context: CompressContext, artifacts: list[Artifact]) -> None:
    """Log that the test queries will hardly show non-inferiority, judging by the spread of differences on dev."""
    needed = min(each.delta.queries_needed or 0 for each in artifacts if each.delta)
    if (queries := len(context.data.split("test"))) < needed:
        logger.info(
            f"verdict: {queries} test queries, where it takes some {needed:,} to show with a power of 80% that no more "
            f"than {context.goal.max_loss:g} is lost, if nothing is; it may end inconclusive"
        )


def _recovered(
    context: CompressContext, family: Family, model: FamilyMember, scored: StepFolder, lists: int, documents: int
) -> dict[str, float]:
    """Train a pruned model on the first lists for one epoch."""

    def work(folder: Path, partial: Path) -> None:
        start = time.perf_counter()
        rows = Dataset.from_list(load_from_disk(str(scored.path)).select(range(lists)).to_list())
        figures = fit(
            RankingDistillationTrainer,
            load_model(str(model.folder), dtype="float32"),
            load_tokenizer(str(model.folder), context.max_length),
            lists=rows,
            data=context.data,
            settings=_optimization(documents),
            folder=partial,
            seed=context.recipe.seed,
            progress=context.progress,
            distillation_loss=RecoverStep().loss,
        )
        pairs = sum(len(row) for row in rows["documents"])
        result = {"ndcg": figures["best_dev_ndcg@10"], "seconds": time.perf_counter() - start, "pairs": pairs}
        write_text(folder / RESULT, json.dumps(result))

    inputs = [family.fingerprint, scored.fingerprint, lists, model.pruning_speedup]
    name = f"recovered{model.pruning_speedup:g}on{lists}"
    folder = context.workspace.step(name, inputs, work, f"train {model.label} on {lists} lists").path
    result: dict[str, float] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return result
