"""The steps that recover ranking quality: teachers score lists of documents, and the pruned model learns the scores."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from transformers import TrainerCallback

from hfcompress.data.also import also_count, mixed
from hfcompress.data.lists import training_lists
from hfcompress.data.pseudo_queries import has_pseudo_queries
from hfcompress.data.teachers import with_teacher_scores
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.quantization.config import weights_from_recipe
from hfcompress.rankers.load import activation_name
from hfcompress.recipe import QuantizationAware, RecoverStep, WeightPruning
from hfcompress.steps.context import RunContext, Stage, in_words
from hfcompress.steps.inputs import also_parts, recovery_teachers, source_fingerprint, with_pseudo_queries
from hfcompress.steps.workspace import StepFolder, StepModel
from hfcompress.training.fit import fit
from hfcompress.training.quantization_aware import QuantizationAwareCallback
from hfcompress.training.trainer import RankingDistillationTrainer
from hfcompress.training.weight_pruning import WeightPruningCallback
from hfcompress.utils.quiet import quiet
from hfcompress.utils.text import count

logger = logging.getLogger(__name__)
# Settings that the scored lists depend on alone, or where they are scored, which does not change them.
_OF_THE_LISTS = {"also", "also_share", "engine", "ray"}


def score(context: RunContext, teacher: StepModel) -> StepFolder:
    """Draw the training lists of the recovery and score them with its teachers."""
    step = context.recipe.recover
    assert step is not None

    def work(folder: Path, partial_work: Path) -> None:
        lists, also = draw_lists(context)
        with quiet():
            scored = with_teacher_scores(lists, recovery_teachers(context, teacher), context.progress, partial_work)
            if also is not None:
                assert context.also is not None
                elsewhere = replace(context, data=context.also.data)  # where BM25 as a teacher scores them
                teachers = recovery_teachers(elsewhere, teacher)
                scored = mixed(scored, with_teacher_scores(also, teachers, context.progress, partial_work))
            scored.save_to_disk(str(folder))

    sources = [[source.model_dump(mode="json"), source_fingerprint(source)] for source in step.teachers]
    inputs: list[Any] = [step.documents, step.random_negatives, step.queries, teacher.fingerprint]
    inputs += [sources, step.unlabelled, step.pseudo_queries]
    inputs += [[context.also.fingerprint, step.also_share]] if context.also else []
    return context.workspace.step("scores", inputs, work, _in_words(context, step))


def draw_lists(context: RunContext) -> tuple[Dataset, Dataset | None]:
    """Draw the training lists of the data's own queries, and those of additional texts; None if there are none.

    Pseudo-queries are made of documents that are in no list yet, as long as there are any.
    """
    step, data, seed = context.recipe.recover, context.data, context.recipe.seed + 1
    assert step is not None
    shape = step.documents, step.random_negatives, seed
    own = partial(training_lists, queries=step.queries, unlabelled=step.unlabelled)
    lists = own(data, *shape)
    missing = step.pseudo_queries if step.queries is None else min(step.pseudo_queries, step.queries - len(lists))
    if missing > 0 and not has_pseudo_queries(data):
        used = {document for documents in lists["document_ids"] for document in documents}
        lists = own(with_pseudo_queries(context.recipe, data, missing, used), *shape)
    wanted = also_count(len(lists), step.also_share)
    also = context.also.lists(*shape, wanted) if context.also and wanted else None
    return lists, also


def _in_words(context: RunContext, step: RecoverStep) -> str:
    """Description of the scores for the log."""
    what = (
        f"scores of {count(max(1, len(step.teachers)), 'teacher')} for {step.documents} documents each of "
        f"{step.queries or 'all'} train queries"
    )
    if context.also is None or not step.also_share:
        return what
    parts = ", ".join(f"{part.queries:,} of {part.name}" for part in also_parts(context))
    return f"{what}, and of other texts: {parts}"


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
        model = load_model(pruned.name, dtype="float32", device=context.device)
        tokenizer = load_tokenizer(pruned.name, context.max_length)
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
            teacher=load_model(teacher.name, dtype="float32", device=context.device) if step.features else None,
            teacher_tokenizer=context.tokenizer() if step.features else None,
        )
        logger.info(f"recover: {in_words(figures)}")
        save_checkpoint(folder, model, tokenizer, activation, context.max_length)

    weights = stage.step.weights.model_dump(mode="json") if stage.step.weights else None
    settings = step.model_dump(mode="json", exclude=_OF_THE_LISTS)
    inputs = [settings, lists.fingerprint, pruned.fingerprint, weights]
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
