"""The step that finds the least important structures and cuts them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfcompress.data.score_text import record_score_text
from hfcompress.models.layout import PRUNING_FILE
from hfcompress.models.load import load_model
from hfcompress.pruning.find_plans import deployment_of, describe, find_plans
from hfcompress.pruning.write import title_of, write_pruned
from hfcompress.recipe import PruneStep, Recipe
from hfcompress.report.structure import PruningSummary
from hfcompress.steps.context import RunContext, Stage, runnable
from hfcompress.steps.workspace import StepModel
from hfcompress.utils.device import CPU, device_title

logger = logging.getLogger(__name__)


def prune(context: RunContext, dense: StepModel, stage: Stage) -> StepModel:
    """Find a plan for a stage's target and cut the model by it.

    Args:
        context: The run.
        dense: The model to prune: the teacher, or the student of the stage before.
        stage: Pruning settings.

    Returns:
        The pruned model.
    """
    step, recipe = stage.step, context.recipe
    deployment = deployment_of(
        step,
        runnable(recipe.quantize.artifacts),
        context.options,
        recipe.data.candidates,
        recipe.quantize.first_token,
    )

    def work(folder: Path, partial: Path) -> None:
        model = load_model(dense.name, dtype="float32", device=context.device)
        tokenizer = context.tokenizer()
        record_score_text(model.config, recipe.data.score_text)
        found = find_plans(
            model,
            tokenizer,
            context.data,
            step,
            [step.target] if step.target else [],
            deployment=deployment,
            max_length=context.max_length,
            seed=recipe.seed + 1,
            progress=context.progress,
            also=context.also,
        )
        (plan,) = found.plans
        logger.info(f"prune: {describe(plan)}")
        summary, _ = write_pruned(
            folder,
            model,
            tokenizer,
            found.importance,
            plan,
            data=context.data,
            max_length=context.max_length,
            vocabulary=step.vocabulary,
            weights=step.weights,
            progress=context.progress,
        )
        if summary.vocabulary:
            logger.info(f"prune: {summary.vocabulary.in_words()}")

    runtime = recipe.evaluate.model_dump(mode="json", include={"threads", "batch_tokens", "long_documents"})
    where: list[Any] = [recipe.quantize.model_dump(mode="json"), runtime] if step.target else []
    where += [device_title(deployment.options.device)] if step.target and deployment.options.device != CPU else []
    inputs = [step.model_dump(mode="json"), where, dense.fingerprint]
    inputs += [context.also.fingerprint] if context.also else []
    return context.workspace.step(f"prune{stage.suffix}", inputs, work, _in_words(step)).model


def pruning_summary_of(recipe: Recipe, pruned: Sequence[StepModel]) -> PruningSummary | None:
    """What all stages together have pruned of the teacher; None where nothing was pruned.

    Args:
        recipe: The recipe.
        pruned: The pruned model of each stage.
    """
    total = None
    for model in pruned:
        summary = PruningSummary.model_validate_json(Path(model.name, PRUNING_FILE).read_text(encoding="utf-8"))
        assert recipe.prune is not None
        total = _composed(total, summary, title_of(recipe.prune.target)) if total else summary
    return total


def _in_words(step: PruneStep) -> str:
    """Description of a pruning step for the log."""
    shares = [f"{name} {share:g}" for name in ("heads", "ffn") if (share := getattr(step, name)) is not None]
    shares += [f"layers {', '.join(map(str, step.layers))}"] if step.layers is not None else []
    parts = [title_of(step.target)] if step.target else shares
    parts += ["vocabulary"] if step.vocabulary else []
    parts += [f"weights ({step.weights.pattern})"] if step.weights else []
    if not (step.target or shares):
        return f"cut {', '.join(parts)}"
    return f"{step.importance} importance on {step.calibration_queries} train queries, cut to {', '.join(parts)}"


def _composed(before: PruningSummary, after: PruningSummary, target: str) -> PruningSummary:
    """What two stages have pruned of the model before the first."""
    speedups = before.predicted_speedup, after.predicted_speedup
    return after.model_copy(
        update={
            "encoder_macs_kept": before.encoder_macs_kept * after.encoder_macs_kept,
            "predicted_speedup": speedups[0] * speedups[1] if speedups[0] and speedups[1] else None,
            "calibration_loss": None,  # each stage measures it against the model that the stage began with
            "target": target,
        }
    )
