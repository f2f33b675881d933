"""In which form to deploy, and how far to prune: decisions by measurements on dev."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hfcompress.card.verdicts import weak_ranking
from hfcompress.compress.context import CALIBRATION_PAIRS, CompressContext, first_stage_quality, quality
from hfcompress.compress.goal import Goal
from hfcompress.compress.step_results import load_artifacts, save_artifacts
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.power import deviation_of, expected_verdict
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.quantization.config import config_from_recipe
from hfcompress.quantization.quantizer import write_quantized
from hfcompress.rankers.load import activation_name
from hfcompress.recipe import ArtifactStep
from hfcompress.report.report import Artifact
from hfcompress.steps.inputs import calibration_pairs, ranking_pairs

logger = logging.getLogger(__name__)

FAMILY = (1.5, 2.0, 3.0, 4.0, 6.0)  # speed-ups by pruning to try if no target is given
RESERVE = 1.08  # asked for beyond the target: predictions, and measurements on dev queries, are off by some %
UNPRUNED = "unpruned"


@dataclass(frozen=True)
class DeploymentForm:
    """A form in which models can be deployed.

    Attributes:
        step: The int8 artifact as a recipe names it; None for fp32 PyTorch.
        artifact: Measurements of the unpruned model in this form, on dev.
        loss: Its loss against the teacher on dev.
        folder: Folder of the unpruned model with its graphs.
    """

    step: ArtifactStep | None
    artifact: Artifact
    loss: float
    folder: Path

    @property
    def label(self) -> str:
        """Runtime and precision."""
        return f"{self.artifact.runtime} {self.artifact.precision}"

    @property
    def unpruned_name(self) -> str:
        """Name of the trial of the unpruned model in this form."""
        return f"unpruned, {self.label}"

    @property
    def artifact_name(self) -> str:
        """Name of a student in this form, in reports."""
        return self._candidate(Path()).name

    def candidate(self, name: str, folder: Path) -> Candidate:
        """A model in this form, as a candidate for evaluation."""
        return replace(self._candidate(folder), name=name, made_from=None)

    def _candidate(self, folder: Path) -> Candidate:
        return Candidate.graph(folder, config_from_recipe(self.step), "") if self.step else Candidate.student(folder)


def measure_unpruned(context: CompressContext) -> tuple[Artifact, list[DeploymentForm]]:
    """Evaluate the teacher, and the unpruned model in each form that may be deployed."""
    steps = context.recipe.quantize.artifacts

    def work(folder: Path, partial: Path) -> None:
        candidates = [Candidate.teacher(context.teacher, "teacher")]
        if steps:
            model = load_model(context.teacher, dtype="float32")
            tokenizer = load_tokenizer(context.teacher, context.max_length)
            configs = [config_from_recipe(step) for step in steps]
            write_quantized(
                folder / "model",
                model,
                tokenizer,
                activation=activation_name(model.config),
                configs=configs,
                pairs=calibration_pairs(context.data, CALIBRATION_PAIRS),
                ranking_pairs=ranking_pairs(context.data),
                progress=context.progress,
            )
            candidates += [Candidate.graph(folder / "model", config, "teacher") for config in configs]
        save_artifacts(folder, context.evaluate(candidates))

    inputs = [*context.identity(), [step.model_dump(mode="json") for step in steps]]
    what = "export and quantize the unpruned model, and evaluate on dev"
    folder = context.workspace.step(UNPRUNED, inputs, work, what).path
    teacher, *others = load_artifacts(folder)
    seconds = context.workspace.steps[-1].seconds / max(1, len(others))
    context.record("teacher", "teacher", 1.0, quality(teacher), quality(teacher), 0.0, teacher)
    if warning := weak_ranking(context.data.first_stage, first_stage_quality(context.data, "dev"), quality(teacher)):
        logger.info(f"teacher: {warning}")
    if not steps:
        return teacher, [DeploymentForm(None, teacher, 0.0, folder)]
    forms = [
        DeploymentForm(step, artifact, quality(teacher) - quality(artifact), folder / "model")
        for step, artifact in zip(steps, others, strict=True)
    ]
    least = min((form.artifact.delta for form in forms if form.artifact.delta), key=deviation_of)
    logger.info(f"verdict: {expected_verdict(least, context.test_queries, 'int8 alone')}")
    for form in forms:
        context.record(
            form.unpruned_name, "int8", 1.0, quality(form.artifact), quality(teacher), seconds, form.artifact
        )
        context.candidates[form.unpruned_name] = form.candidate(form.unpruned_name, form.folder)
    return teacher, forms


def choose_form(context: CompressContext, forms: Sequence[DeploymentForm]) -> DeploymentForm:
    """The fastest form within the loss; if there is none, the one with the smallest loss."""
    goal = context.goal
    within = [form for form in forms if form.loss <= goal.max_loss]
    chosen = max(within, key=lambda form: _speed(goal, form)) if within else min(forms, key=lambda form: form.loss)
    if chosen.step is None:
        return chosen
    for form in forms:
        found = f"{form.artifact.speedup:.2f}x with a difference of {-form.loss:+.4f} on dev"
        if form is chosen:
            verdict = "pruned models are tried in this form, too"
        elif form.loss > goal.max_loss:
            verdict = f"loses more than {goal.max_loss:g}"
        else:
            verdict = f"slower than {chosen.label}"
        context.record_decision(form.unpruned_name, f"{found}: {verdict}")
    return chosen


def pruning_speedups(goal: Goal, form: DeploymentForm) -> tuple[float, ...]:
    """Speed-ups by pruning to search for; none if the unpruned model is fast enough with some reserve."""
    if not goal.has_target:
        return FAMILY
    missing = RESERVE * missing_speedup(goal, form.artifact)
    return (round(missing, 3),) if missing > 1 else ()


def missing_speedup(goal: Goal, artifact: Artifact) -> float:
    """Factor by which an artifact has to become faster for the target of a goal; at most 1 if it is fast enough."""
    if goal.target_speedup is not None:
        return goal.target_speedup / artifact.speedup
    assert goal.target_latency_ms is not None
    return artifact.latency.p50_ms / goal.target_latency_ms


def _speed(goal: Goal, form: DeploymentForm) -> float:
    return form.artifact.speedup if goal.speed == "throughput" else 1 / form.artifact.latency.p50_ms
