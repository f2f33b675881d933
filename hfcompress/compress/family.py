"""The family of pruned models of `compress`: one search for all speed-ups, without training."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.compress.choose import DeploymentForm
from hfcompress.compress.context import CALIBRATION_PAIRS, CompressContext, quality
from hfcompress.compress.goal import Goal
from hfcompress.compress.step_results import load_artifacts, save_artifacts
from hfcompress.evaluation.candidate import Candidate
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.pruning.find_plans import FoundPlan, FoundPlans, deployment_of, describe, find_plans
from hfcompress.pruning.write import write_pruned
from hfcompress.quantization.config import config_from_recipe
from hfcompress.quantization.quantizer import write_quantized
from hfcompress.rankers.load import activation_name
from hfcompress.recipe import PruneStep, VocabularyStep
from hfcompress.report.delta import Delta
from hfcompress.report.report import Artifact
from hfcompress.steps.inputs import calibration_pairs
from hfcompress.utils.files import size_of, write_text

logger = logging.getLogger(__name__)

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

    @property
    def delta(self) -> Delta:
        """Difference to the teacher on dev before any recovery."""
        assert self.artifact.delta is not None
        return self.artifact.delta


@dataclass(frozen=True)
class Family:
    """The pruned models of one search.

    Attributes:
        models: The models by `pruning_speedup`.
        fingerprint: Fingerprint of everything that they were made from.
    """

    models: dict[float, FamilyMember]
    fingerprint: str


def pruning(goal: Goal, pruning_speedup: float, form: DeploymentForm, vocabulary: bool, stages: int = 1) -> PruneStep:
    """The pruning step for a speed-up."""
    return PruneStep(
        target_speedup=pruning_speedup,
        speed=goal.speed,
        stages=stages,
        runtime=form.artifact.runtime,
        vocabulary=VocabularyStep() if vocabulary else None,
    )


def prune_family(
    context: CompressContext,
    pruning_speedups: tuple[float, ...],
    teacher: Artifact,
    form: DeploymentForm,
    name: str = "family",
) -> Family:
    """Prune for each speed-up without training, export, and evaluate beside the teacher.

    Args:
        context: The call.
        pruning_speedups: Speed-ups by pruning.
        teacher: Measurements of the teacher on dev.
        form: The form in which models are deployed.
        name: Name of the step.
    """

    def work(folder: Path, partial: Path) -> None:
        model = load_model(context.teacher, dtype="float32", device=context.options.device)
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
            also=context.also,
        )
        candidates, records = [Candidate.teacher(context.teacher, "teacher")], []
        for plan in found.plans:
            assert plan.target
            speedup = plan.target[1]
            logger.info(f"pruned {speedup:g}x: {describe(plan)}")
            candidate = form.candidate(f"pruned {speedup:g}x", folder / f"{speedup:g}")
            vocabulary = context.goal.vocabulary == "corpus"
            size = _write(context, candidate, form, model, tokenizer, found, plan, vocabulary)
            if not vocabulary and (vocabulary := context.goal.cuts_vocabulary(size)):
                logger.info(f"pruned {speedup:g}x: {size / 1e6:.1f} MB are too many: the vocabulary is cut")
                _write(context, candidate, form, model, tokenizer, found, plan, vocabulary)
            candidates.append(candidate)
            figures = {"macs_kept": plan.macs_kept, "calibration_loss": plan.loss}
            records.append({"pruning_speedup": speedup, **figures, "vocabulary": vocabulary})
        save_artifacts(folder, context.evaluate(candidates))
        write_text(folder / MODELS_FILE, json.dumps(records))

    sizes = ", ".join(f"{speedup:g}x" for speedup in pruning_speedups)
    deployed = form.step.model_dump(mode="json") if form.step else None
    size = [context.goal.vocabulary, context.goal.max_size_mb]
    inputs = [*context.identity(), list(pruning_speedups), context.goal.speed, deployed, size]
    inputs += [context.also.fingerprint] if context.also else []
    step = context.workspace.step(name, inputs, work, f"search, prune and evaluate on dev: {sizes}")
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
        context.candidates[label] = form.candidate(label, folder)
        context.record(label, "one-shot", speedup, quality(artifact), quality(teacher), seconds, artifact)
    return Family(_small_enough(context, models), step.fingerprint)


def _small_enough(context: CompressContext, models: dict[float, FamilyMember]) -> dict[float, FamilyMember]:
    """The models that are not too large; all of them if every one is."""
    goal = context.goal
    fitting = {speedup: each for speedup, each in models.items() if goal.fits(each.artifact.size_bytes)}
    for speedup in (models.keys() - fitting.keys()) if fitting else ():
        size = models[speedup].artifact.size_bytes / 1e6
        context.record_decision(models[speedup].label, f"dropped: {size:.1f} MB, more than {goal.max_size_mb:g}")
    return fitting or models


def _renamed(record: dict[str, Any]) -> dict[str, Any]:
    """A record of `MODELS_FILE`, whose keys had other names in folders of earlier versions."""
    former = {"ratio": "pruning_speedup", "flops_kept": "macs_kept"}
    return {former.get(key, key): value for key, value in record.items()}


def _write(
    context: CompressContext,
    candidate: Candidate,
    form: DeploymentForm,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    found: FoundPlans,
    plan: FoundPlan,
    vocabulary: bool,
) -> int:
    """Write the pruned checkpoint and its graphs.

    Args:
        context: The call.
        candidate: The model to write.
        form: The form in which it is deployed.
        model: The teacher.
        tokenizer: Its tokenizer.
        found: Importance that the plan was made from.
        plan: What is pruned.
        vocabulary: Whether to cut the vocabulary to the corpus.

    Returns:
        Size of a deployment in bytes.
    """
    folder = Path(candidate.folder)
    summary, _ = write_pruned(
        folder,
        model,
        tokenizer,
        found.importance,
        plan,
        data=context.data,
        max_length=context.max_length,
        vocabulary=VocabularyStep() if vocabulary else None,
        progress=context.progress,
    )
    if summary.vocabulary:
        logger.info(f"{candidate.name}: {summary.vocabulary.in_words()}")
    if form.step:
        _quantize(context, folder, form)
    return size_of(candidate.files())


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
