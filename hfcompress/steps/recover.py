"""The steps that recover ranking quality: teachers score lists of documents, and the pruned model learns the scores."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from transformers import TrainerCallback

from hfcompress.data.lists import training_lists
from hfcompress.data.pseudo_queries import has_pseudo_queries
from hfcompress.data.teachers import with_teacher_scores
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.quantization.config import weights_from_recipe
from hfcompress.rankers.load import activation_name
from hfcompress.recipe import QuantizationAware, RecoverStep, WeightPruning
from hfcompress.steps.context import RunContext, Stage, in_words
from hfcompress.steps.inputs import recovery_teachers, source_fingerprint, with_pseudo_queries
from hfcompress.steps.workspace import StepFolder, StepModel
from hfcompress.training.fit import fit
from hfcompress.training.quantization_aware import QuantizationAwareCallback
from hfcompress.training.trainer import RankingDistillationTrainer
from hfcompress.training.weight_pruning import WeightPruningCallback
from hfcompress.utils.quiet import quiet
from hfcompress.utils.text import count

logger = logging.getLogger(__name__)


def score(context: RunContext, teacher: StepModel) -> StepFolder:
    """Draw the training lists of the recovery and score them with its teachers."""
    step = context.recipe.recover
    assert step is not None

    def work(folder: Path, partial: Path) -> None:
        data = context.data
        if step.pseudo_queries and not has_pseudo_queries(data):
            data = with_pseudo_queries(context.recipe, data)
        lists = training_lists(
            data,
            step.documents,
            step.random_negatives,
            context.recipe.seed + 1,
            queries=step.queries,
            unlabelled=step.unlabelled,
        )
        with quiet():
            scored = with_teacher_scores(lists, recovery_teachers(context, teacher), context.progress, partial)
            scored.save_to_disk(str(folder))

    sources = [[source.model_dump(mode="json"), source_fingerprint(source)] for source in step.teachers]
    inputs: list[Any] = [step.documents, step.random_negatives, step.queries, teacher.fingerprint]
    teachers = count(max(1, len(step.teachers)), "teacher")
    what = f"scores of {teachers} for {step.documents} documents each of {step.queries or 'all'} train queries"
    return context.workspace.step("scores", [*inputs, sources, step.unlabelled, step.pseudo_queries], work, what)


def recover(context: RunContext, teacher: StepModel, lists: StepFolder, pruned: StepModel, stage: Stage) -> StepModel:
    """Train the pruned model on the teacher's scores and, if the recipe asks for it, on its hidden states.

    Args:
        context: The run.
        teacher: The teacher.
        lists: The scored lists.
        pruned: The pruned model.
        stage: The round of pruning and recovery.

    Returns:
        The student.
    """
    step = context.recipe.recover
    assert step is not None

    def work(folder: Path, partial: Path) -> None:
        model, tokenizer = load_model(pruned.name, dtype="float32"), load_tokenizer(pruned.name, context.max_length)
        activation = activation_name(model.config)
        figures = fit(
            RankingDistillationTrainer,
            model,
            tokenizer,
            lists=Dataset.from_list(load_from_disk(str(lists.path)).to_list()),
            data=context.data,
            settings=step.optimization,
            folder=partial,
            seed=context.recipe.seed,
            progress=context.progress,
            callbacks=_callbacks(step, stage.step.weights),
            distillation_loss=step.loss,
            feature_loss=step.features,
            teacher=load_model(teacher.name, dtype="float32") if step.features else None,
            teacher_tokenizer=context.tokenizer() if step.features else None,
        )
        logger.info(f"recover: {in_words(figures)}")
        save_checkpoint(folder, model, tokenizer, activation, context.max_length)

    weights = stage.step.weights.model_dump(mode="json") if stage.step.weights else None
    inputs = [step.model_dump(mode="json"), lists.fingerprint, pruned.fingerprint, weights]
    what = f"distil the scores into the pruned model, {count(step.optimization.epochs, 'epoch')}"
    return context.workspace.step(f"recover{stage.suffix}", inputs, work, what).model


def _callbacks(step: RecoverStep, weights: WeightPruning | None) -> list[TrainerCallback]:
    """Trainer callbacks of a recovery."""
    callbacks: list[TrainerCallback] = []
    if step.quantization_aware:
        callbacks.append(_rounding(step.quantization_aware))
    if weights:
        callbacks.append(WeightPruningCallback(weights.sparsity, weights.pattern, end=weights.gradual))
    return callbacks


def _rounding(step: QuantizationAware) -> QuantizationAwareCallback:
    reduce_range = None if step.reduce_range == "auto" else step.reduce_range
    weights = weights_from_recipe(step.weights) if step.weights else None
    return QuantizationAwareCallback(step.begin, step.activations, step.per_channel, reduce_range, weights)
