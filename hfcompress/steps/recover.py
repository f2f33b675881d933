"""The steps that bring the quality back: teachers score lists of documents, and the pruned model learns from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from transformers import TrainerCallback

from hfcompress.checkpoint import save_checkpoint
from hfcompress.data.lists import training_lists
from hfcompress.data.pseudo import has_pseudo_queries
from hfcompress.data.teachers import with_teacher_scores
from hfcompress.markdown import count
from hfcompress.models import load_model, load_tokenizer
from hfcompress.quantization.config import weights_from_recipe
from hfcompress.quiet import quiet
from hfcompress.rankers.load import activation_name
from hfcompress.recipe import QuantizationAware, RecoverStep, WeightPruning
from hfcompress.run_data import recovery_teachers, source_fingerprint, with_pseudo_queries
from hfcompress.steps.base import Run, Stage, in_words
from hfcompress.training.fit import fit
from hfcompress.training.quantization_aware import QuantizationAwareCallback
from hfcompress.training.trainer import RankingDistillationTrainer
from hfcompress.training.weight_pruning import WeightPruningCallback


def score(current: Run, teacher: str, teacher_of: str) -> tuple[Path, str]:
    """Draw the lists of the recovery, with the scores of its teachers.

    Returns:
        Folder of the lists, and a fingerprint.
    """
    step = current.recipe.recover
    assert step is not None

    def work(folder: Path, partial: Path) -> None:
        data = current.data
        if step.pseudo_queries and not has_pseudo_queries(data):
            data = with_pseudo_queries(current.recipe, data)
        lists = training_lists(
            data,
            step.documents,
            step.random_negatives,
            current.recipe.seed + 1,
            queries=step.queries,
            unlabelled=step.unlabelled,
        )
        teachers = recovery_teachers(current.recipe, current.data, teacher, teacher_of, current.tokenizer())
        with quiet():
            with_teacher_scores(lists, teachers, current.progress, partial).save_to_disk(str(folder))

    sources = [[source.model_dump(mode="json"), source_fingerprint(source)] for source in step.teachers]
    inputs: list[Any] = [step.documents, step.random_negatives, step.queries, teacher_of]
    teachers = count(max(1, len(step.teachers)), "teacher")
    what = f"scores of {teachers} for {step.documents} documents each of {step.queries or 'all'} train queries"
    return current.workspace.step("scores", [*inputs, sources, step.unlabelled, step.pseudo_queries], work, what)


def recover(
    current: Run, teacher: str, lists: tuple[Path, str], pruned: str, made_of: str, stage: Stage
) -> tuple[str, str]:
    """Train the pruned model on the teacher's scores, and where the recipe says so on its features.

    Args:
        current: The run.
        teacher: The teacher.
        lists: What `score` returned.
        pruned: Folder of the pruned model.
        made_of: Its fingerprint.
        stage: The round that this is of.

    Returns:
        Folder of the student, and a fingerprint.
    """
    step = current.recipe.recover
    assert step is not None
    scored, scored_of = lists

    def work(folder: Path, partial: Path) -> None:
        model, tokenizer = load_model(pruned, dtype="float32"), load_tokenizer(pruned, current.max_length)
        activation = activation_name(model.config)
        figures = fit(
            RankingDistillationTrainer,
            model,
            tokenizer,
            Dataset.from_list(load_from_disk(str(scored)).to_list()),
            current.data,
            step.optimization,
            partial,
            current.recipe.seed,
            current.progress,
            callbacks=_callbacks(step, stage.step.weights),
            distillation_loss=step.loss,
            feature_loss=step.features,
            teacher=load_model(teacher, dtype="float32") if step.features else None,
            teacher_tokenizer=current.tokenizer() if step.features else None,
        )
        current.workspace.say(f"recover: {in_words(figures)}")
        save_checkpoint(folder, model, tokenizer, activation, current.max_length)

    weights = stage.step.weights.model_dump(mode="json") if stage.step.weights else None
    inputs = [step.model_dump(mode="json"), scored_of, made_of, weights]
    what = f"distil the scores into the pruned model, {count(step.optimization.epochs, 'epoch')}"
    folder, fingerprint = current.workspace.step(f"recover{stage.suffix}", inputs, work, what)
    return str(folder), fingerprint


def _callbacks(step: RecoverStep, weights: WeightPruning | None) -> list[TrainerCallback]:
    """What happens beside the training of a recovery."""
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
