"""The family of pruned models of `compress`: one search, then rounds of short recoveries with successive halving."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress import pipeline
from hfcompress.compress import budget
from hfcompress.compress.budget import RecoverySize, TimeBudget
from hfcompress.compress.choose import DeploymentForm
from hfcompress.compress.context import CALIBRATION_PAIRS, CompressContext, quality
from hfcompress.compress.goal import Goal
from hfcompress.compress.step_results import RESULT, load_artifacts, save_artifacts
from hfcompress.evaluation.candidate import Candidate
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.pruning.find_plans import FoundPlan, FoundPlans, deployment_of, describe, find_plans
from hfcompress.pruning.write import write_pruned
from hfcompress.quantization.config import config_from_recipe
from hfcompress.quantization.quantizer import write_quantized
from hfcompress.rankers.load import activation_name
from hfcompress.recipe import Optimization, PruneStep, Recipe, RecoverStep, VocabularyStep
from hfcompress.report.report import Artifact
from hfcompress.report.structure import VocabularySummary
from hfcompress.steps.inputs import calibration_pairs
from hfcompress.steps.workspace import StepFolder
from hfcompress.training.fit import fit
from hfcompress.training.trainer import RankingDistillationTrainer
from hfcompress.utils.files import write_text

logger = logging.getLogger(__name__)

ENOUGH = 0.5  # share of the largest loss allowed: a loss below it after a short recovery is small enough
CHANGED = 0.005  # share of held-out pairs that a smaller vocabulary may tokenize differently
LEARNING_RATE = 2e-4
NEAR = 0.02  # calibration loss; about that of plain int8 of unpruned models
MODELS_FILE = "members.json"


@dataclass(frozen=True)
class FamilyMember:
    """A pruned model of a family.

    Attributes:
        pruning_speedup: Target speed-up by pruning.
        folder: Its checkpoint.
        artifact: Measurements on dev before any recovery, in the form in which it is deployed.
        macs_kept: Share of the encoder's MACs that it keeps.
        calibration_loss: Divergence of its ranking from the teacher's on held-out calibration queries.
        vocabulary: Whether its vocabulary was cut, too.
        seconds: Its share of the time that the family took.
    """

    pruning_speedup: float
    folder: Path
    artifact: Artifact
    macs_kept: float
    calibration_loss: float
    vocabulary: bool
    seconds: float

    @property
    def label(self) -> str:
        """Name in tables."""
        return f"pruned {self.pruning_speedup:g}x"


@dataclass(frozen=True)
class Family:
    """The pruned models of one search.

    Attributes:
        models: The models by `pruning_speedup`.
        fingerprint: Fingerprint of everything that they were made from.
    """

    models: dict[float, FamilyMember]
    fingerprint: str


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
    family = _family(context, pruning_speedups, teacher, form)
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
    lists = time_budget.lists(rates)
    if not lists:
        return as_it_is(budget.fastest_within(losses, max_loss), "no time is left for a recovery")
    scored = _scored_lists(context, lists)
    for number in range(budget.ROUNDS):
        short = 0 if len(losses) == 1 else time_budget.short(number, [rates[speedup] for speedup in losses], lists)
        if not short:
            break
        for speedup in losses:
            result = _recovered(context, family, models[speedup], scored, short)
            losses[speedup], rates[speedup] = quality(teacher) - result["ndcg"], result["seconds"] / result["pairs"]
            name = f"{models[speedup].label}, {short} lists"
            context.record(name, "short recovery", speedup, result["ndcg"], quality(teacher), result["seconds"])
        kept = budget.survivors(losses, ENOUGH * max_loss)
        for speedup, loss in losses.items():
            decision = "kept" if speedup in kept else "dropped: another model is more promising"
            context.record_decision(f"{models[speedup].label}, {short} lists", f"loss {loss:+.4f} on dev: {decision}")
        losses = {speedup: losses[speedup] for speedup in kept}
    speedup = budget.fastest_within(losses, max_loss)
    stages, epochs = time_budget.stages(speedup, models[speedup].macs_kept, rates[speedup], lists)
    if not epochs:
        return as_it_is(speedup, "no time is left for a recovery")
    return Choice(models[speedup], RecoverySize(lists, epochs), stages)


def recovery(context: CompressContext, lists: int, epochs: int) -> Recipe:
    """The shared settings of all trials, with a recovery; a pruning step is to be added."""
    step = context.supervision.model_copy(
        update={
            "documents": budget.DOCUMENTS,
            "queries": lists,
            "optimization": Optimization(epochs=epochs, learning_rate=LEARNING_RATE, evaluations=2),
        }
    )
    return context.recipe.model_copy(update={"recover": step})


def pruning(goal: Goal, pruning_speedup: float, form: DeploymentForm, vocabulary: bool, stages: int = 1) -> PruneStep:
    """The pruning step for a speed-up."""
    return PruneStep(
        target_speedup=pruning_speedup,
        speed=goal.speed,
        stages=stages,
        runtime=form.artifact.runtime,
        vocabulary=VocabularyStep() if vocabulary else None,
    )


def _near(models: Mapping[float, FamilyMember], losses: Mapping[float, float], max_loss: float) -> float | None:
    """Speed-up of the fastest model that needs no recovery; None if there is none.

    Training also moves a model away from its teacher. If hardly anything was lost, there is little to recover, and
    training makes the difference to the teacher on single queries larger and harder to tell from the margin.
    """
    near = [
        speedup for speedup, loss in losses.items() if loss <= max_loss and models[speedup].calibration_loss <= NEAR
    ]
    return max(near, default=None)


def _scored_lists(context: CompressContext, lists: int) -> StepFolder:
    """Training lists with the teacher's scores, as the final run will use them, too."""
    run = pipeline.RunContext(recovery(context, lists, 1), context.data, context.workspace, context.progress)
    return pipeline.score(run, pipeline.obtain_teacher(run))


def _family(
    context: CompressContext, pruning_speedups: tuple[float, ...], teacher: Artifact, form: DeploymentForm
) -> Family:
    """Prune for each speed-up without training, export, and evaluate beside the teacher."""

    def work(folder: Path, partial: Path) -> None:
        model = load_model(context.teacher, dtype="float32")
        tokenizer = load_tokenizer(context.teacher, context.max_length)
        step = pruning(context.goal, pruning_speedups[0], form, vocabulary=False)
        artifacts = [form.step] if form.step else []
        found = find_plans(
            model,
            tokenizer,
            context.data,
            step,
            [("target_speedup", speedup) for speedup in pruning_speedups],
            deployment=deployment_of(step, artifacts, context.options, context.recipe.data.candidates),
            max_length=context.max_length,
            seed=context.recipe.seed + 1,  # that of a run of the recipe, which then finds the same plan
            progress=context.progress,
            reachable_only=True,
        )
        candidates, records, vocabulary = [Candidate.teacher(context.teacher, "teacher")], [], True
        for plan in found.plans:
            assert plan.target
            speedup = plan.target[1]
            logger.info(f"pruned {speedup:g}x: {describe(plan)}")
            path = folder / f"{speedup:g}"
            vocabulary = _write(context, path, model, tokenizer, found, plan, vocabulary)
            if form.step:
                _quantize(context, path, form)
            candidates.append(form.candidate(f"pruned {speedup:g}x", path))
            figures = {"macs_kept": plan.macs_kept, "calibration_loss": plan.loss}
            records.append({"pruning_speedup": speedup, **figures, "vocabulary": vocabulary})
        save_artifacts(folder, context.evaluate(candidates))
        write_text(folder / MODELS_FILE, json.dumps(records))

    sizes = ", ".join(f"{speedup:g}x" for speedup in pruning_speedups)
    deployed = form.step.model_dump(mode="json") if form.step else None
    inputs = [*context.identity(), list(pruning_speedups), context.goal.speed, deployed]
    step = context.workspace.step("family", inputs, work, f"search, prune and evaluate on dev: {sizes}")
    records = [_renamed(record) for record in json.loads((step.path / MODELS_FILE).read_text(encoding="utf-8"))]
    seconds = context.workspace.steps[-1].seconds / len(records)
    models = {}
    for record, artifact in zip(records, load_artifacts(step.path)[1:], strict=True):
        speedup = record["pruning_speedup"]
        folder = step.path / f"{speedup:g}"
        models[speedup] = FamilyMember(
            pruning_speedup=speedup,
            folder=folder,
            artifact=artifact,
            macs_kept=record["macs_kept"],
            calibration_loss=record["calibration_loss"],
            vocabulary=record["vocabulary"],
            seconds=seconds,
        )
        label = models[speedup].label
        context.record(label, "one-shot", speedup, quality(artifact), quality(teacher), seconds, artifact)
    return Family(models, step.fingerprint)


def _renamed(record: dict[str, Any]) -> dict[str, Any]:
    """A record of `MODELS_FILE`, whose keys had other names in folders of earlier versions."""
    former = {"ratio": "pruning_speedup", "flops_kept": "macs_kept"}
    return {former.get(key, key): value for key, value in record.items()}


def _write(
    context: CompressContext,
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    found: FoundPlans,
    plan: FoundPlan,
    vocabulary: bool,
) -> bool:
    """Write the pruned checkpoint, with its vocabulary cut unless that changes too many held-out pairs.

    Returns:
        Whether the vocabulary was cut.
    """

    def write(step: VocabularyStep | None) -> VocabularySummary | None:
        summary, _ = write_pruned(
            folder,
            model,
            tokenizer,
            found.importance,
            plan,
            data=context.data,
            max_length=context.max_length,
            vocabulary=step,
            progress=context.progress,
        )
        return summary.vocabulary

    summary = write(VocabularyStep() if vocabulary else None)
    if summary is None or summary.changed_share <= CHANGED:
        return vocabulary
    logger.info(
        f"vocabulary: kept whole, since {summary.changed_share:.1%} of held-out pairs would tokenize differently"
    )
    write(None)
    return False


def _quantize(context: CompressContext, folder: Path, form: DeploymentForm) -> None:
    """Add the graphs of a form to a checkpoint."""
    assert form.step
    student = load_model(str(folder), dtype="float32")
    write_quantized(
        folder,
        student,
        load_tokenizer(str(folder), context.max_length),
        activation=activation_name(student.config),
        configs=[config_from_recipe(form.step)],
        pairs=calibration_pairs(context.data, CALIBRATION_PAIRS),
        progress=context.progress,
    )


def _warn_of_few_queries(context: CompressContext, artifacts: list[Artifact]) -> None:
    """Log that the test queries will hardly show non-inferiority, judging by the spread of differences on dev."""
    needed = min(each.delta.queries_needed or 0 for each in artifacts if each.delta)
    if (queries := len(context.data.split("test"))) < needed:
        logger.info(
            f"verdict: {queries} test queries, where it takes some {needed:,} to show with a power of 80% that no more "
            f"than {context.goal.max_loss:g} is lost, if nothing is; it may end inconclusive"
        )


def _recovered(
    context: CompressContext, family: Family, model: FamilyMember, scored: StepFolder, lists: int
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
            settings=Optimization(learning_rate=LEARNING_RATE),
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
