"""The step that finds what matters least and cuts it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hfcompress.data.score_text import record_score_text
from hfcompress.evaluation.structure import PruningSummary
from hfcompress.layout import PRUNING_FILE
from hfcompress.models import load_model
from hfcompress.oneshot import title_of, write_pruned
from hfcompress.pruning import deployment_of, describe, prune_family
from hfcompress.rankers.base import RankerOptions
from hfcompress.recipe import PruneStep, Recipe
from hfcompress.steps.base import Run, Stage, installed


def prune(current: Run, name: str, made_of: str, stage: Stage) -> tuple[str, str]:
    """Find what matters least and cut it.

    Args:
        current: The run.
        name: The model to prune: the teacher, or what an earlier stage left.
        made_of: Its fingerprint.
        stage: How to prune.

    Returns:
        Folder of the pruned model, and a fingerprint.
    """
    step = stage.step

    def work(folder: Path, partial: Path) -> None:
        model, tokenizer = load_model(name, dtype="float32"), current.tokenizer()
        record_score_text(model.config, current.recipe.data.score_text)
        options = RankerOptions(current.recipe.evaluate.threads, current.recipe.evaluate.batch_tokens)
        artifacts = [artifact for artifact in current.recipe.quantize.artifacts if installed(artifact)]
        deployment = deployment_of(
            step, artifacts, options, current.recipe.data.candidates, current.recipe.quantize.first_token
        )
        targets = [step.target] if step.target else []
        family = prune_family(
            model,
            tokenizer,
            current.data,
            step,
            targets,
            deployment,
            current.max_length,
            current.recipe.seed + 1,
            current.workspace.say,
            current.progress,
        )
        member = family.members[0]
        current.workspace.say(f"prune: {describe(member)}")
        summary, _ = write_pruned(
            folder,
            model,
            tokenizer,
            family.importance,
            member,
            step.vocabulary,
            current.data,
            current.max_length,
            current.progress,
            step.weights,
        )
        if summary.vocabulary:
            current.workspace.say(f"prune: {summary.vocabulary.in_words()}")

    runtime = current.recipe.evaluate.model_dump(mode="json", include={"threads", "batch_tokens"})
    where = [current.recipe.quantize.model_dump(mode="json"), runtime] if step.target else []
    inputs = [step.model_dump(mode="json"), where, made_of]
    folder, fingerprint = current.workspace.step(f"prune{stage.suffix}", inputs, work, _in_words(step))
    return str(folder), fingerprint


def what_was_pruned(recipe: Recipe, folders: Sequence[str]) -> PruningSummary | None:
    """What all stages together have pruned of the teacher.

    Args:
        recipe: The recipe.
        folders: The pruned model of each stage.
    """
    together = None
    for folder in folders:
        summary = PruningSummary.model_validate_json(Path(folder, PRUNING_FILE).read_text(encoding="utf-8"))
        assert recipe.prune is not None
        together = _together(together, summary, title_of(recipe.prune.target)) if together else summary
    return together


def _in_words(step: PruneStep) -> str:
    """What a step cuts, for the user."""
    shares = [f"{name} {share:g}" for name in ("heads", "ffn") if (share := getattr(step, name)) is not None]
    shares += [f"layers {', '.join(map(str, step.layers))}"] if step.layers is not None else []
    parts = [title_of(step.target)] if step.target else shares
    parts += ["vocabulary"] if step.vocabulary else []
    parts += [f"weights ({step.weights.pattern})"] if step.weights else []
    if not (step.target or shares):
        return f"cut {', '.join(parts)}"
    return f"{step.importance} importance on {step.calibration_queries} train queries, cut to {', '.join(parts)}"


def _together(before: PruningSummary, after: PruningSummary, target: str) -> PruningSummary:
    """What two stages have pruned of the model before the first."""
    speedups = before.predicted_speedup, after.predicted_speedup
    return after.model_copy(
        update={
            "encoder_flops_kept": before.encoder_flops_kept * after.encoder_flops_kept,
            "predicted_speedup": speedups[0] * speedups[1] if speedups[0] and speedups[1] else None,
            "calibration_loss": None,  # that of a stage is against the model it began with
            "target": target,
        }
    )
