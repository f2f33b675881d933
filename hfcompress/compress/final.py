"""The recipe of the final run, and on dev the last choice before it: the recovered model, or int8 without pruning."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from transformers import set_seed

from hfcompress import pipeline
from hfcompress.compress.choose import DeploymentForm
from hfcompress.compress.context import CompressContext, quality
from hfcompress.compress.family import pruning
from hfcompress.compress.recoveries import recovery
from hfcompress.compress.rounds import Choice
from hfcompress.compress.step_results import load_artifacts, save_artifacts
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.power import POWER, pass_probability
from hfcompress.optimum_config import RankerCompressionConfig
from hfcompress.recipe import PruneStep, QuantizeStep, Recipe, VocabularyStep
from hfcompress.report.report import Artifact
from hfcompress.steps.workspace import StepFolder

logger = logging.getLogger(__name__)


def final_recipe(context: CompressContext, form: DeploymentForm, choice: Choice | None) -> Recipe:
    """The recipe of the final run; without a choice, it prunes no more than the vocabulary."""
    recipe = context.recipe
    if choice and choice.recovery.lists:
        recipe = recovery(context, choice.recovery)
    step = None
    if choice:
        step = pruning(context.goal, choice.pruning_speedup, form, choice.member.vocabulary, choice.stages)
    elif context.goal.cuts_vocabulary(form.artifact.size_bytes):
        step = PruneStep(vocabulary=VocabularyStep())
    evaluation = {"deploy": form.artifact_name, "zero_shot": list(context.zero_shot)}
    settings = recipe.model_copy(
        update={
            "prune": step,
            "evaluate": recipe.evaluate.model_copy(update=evaluation),
            "quantize": QuantizeStep(
                artifacts=[form.step] if form.step else [], calibration_pairs=recipe.quantize.calibration_pairs
            ),
        }
    )
    return Recipe.model_validate(settings.model_dump())


def keep_plan(context: CompressContext, recipe: Recipe, choice: Choice) -> None:
    """Take over the chosen model as the result of the recipe's pruning, where that would search for the same plan.

    It would not in several stages. Nor would it without a recovery, and so without additional texts, where the family
    was calibrated on such texts.

    Args:
        context: The call.
        recipe: The recipe of the choice.
        choice: The model of the family, and how it is recovered.
    """
    if choice.stages > 1 or (context.also and not recipe.recover):
        return
    member = choice.member
    run = pipeline.RunContext(recipe, context.data, context.workspace.preview(), False, context.also)
    (stage,) = pipeline.stages(recipe)
    pruned = pipeline.prune(run, pipeline.obtain_teacher(run), stage)

    def write(folder: Path) -> None:
        for path in member.folder.iterdir():
            if path.is_file() and path.name != RankerCompressionConfig.CONFIG_NAME:  # of its graphs
                shutil.copyfile(path, folder / path.name)

    context.workspace.take_over(StepFolder(Path(pruned.name), pruned.fingerprint), write, member.seconds)


def confirmed(context: CompressContext, form: DeploymentForm, choice: Choice, recipe: Recipe) -> Choice | None:
    """Compare the recovered model with int8 without pruning, on dev; the test split has not been seen.

    The faster one that is expected to pass is deployed; if neither is, the one that more probably passes. If a target
    speed was given, a slower model is no alternative, nor is one that is too large; then nothing is measured.

    Args:
        context: The call.
        form: The form of deployment.
        choice: The choice that was made after the short recoveries.
        recipe: Its recipe, whose artifacts are made here; the final run keeps them.

    Returns:
        The choice, or None for int8 without pruning.
    """
    unpruned = form.artifact
    if context.goal.has_target or unpruned.delta is None or not context.goal.fits(unpruned.size_bytes):
        return choice
    recovered = choice.member.artifact
    if choice.recovery.lists:
        recovered = _recovered(context, form, choice, recipe)
    by_name = {"pruned": recovered, "unpruned": unpruned}
    expected = {}
    for name, artifact in by_name.items():
        assert artifact.delta is not None
        expected[name] = pass_probability(artifact.delta, context.test_queries)
    passing = [name for name in by_name if expected[name] >= POWER]
    if passing:
        chosen = max(passing, key=lambda name: by_name[name].speedup)
    else:
        chosen = max(by_name, key=lambda name: expected[name])
    reason = "the fastest that is" if passing else f"none is, by {POWER:.0%}; it is the nearest to being"
    found = ", ".join(f"{name} {by_name[name].speedup:.2f}x with {expected[name]:.0%}" for name in by_name)
    logger.info(f"choice: {chosen} is deployed, {reason} expected to pass ({found})")
    return choice if chosen == "pruned" else None


def _recovered(context: CompressContext, form: DeploymentForm, choice: Choice, recipe: Recipe) -> Artifact:
    """Make the model of the recipe, and measure it on dev in the form of deployment."""
    set_seed(recipe.seed)
    run = pipeline.RunContext(recipe, context.data, context.workspace, context.progress, context.also)
    checkpoint = pipeline.make(run)[-1]

    def work(folder: Path, partial: Path) -> None:
        candidates = [Candidate.teacher(context.teacher, "teacher"), form.candidate("recovered", checkpoint.path)]
        save_artifacts(folder, context.evaluate(candidates))

    inputs = [*context.identity(), checkpoint.fingerprint, form.artifact_name]
    folder = context.workspace.step("confirm", inputs, work, "evaluate the recovered model on dev").path
    teacher, artifact = load_artifacts(folder)
    name, seconds = f"{choice.member.label}, recovered", context.workspace.steps[-1].seconds
    context.record(
        name, "full recovery", choice.pruning_speedup, quality(artifact), quality(teacher), seconds, artifact
    )
    return artifact
