"""The first step: the teacher is trained, made of a classifier, or taken as it is.

Its order may stand in for relevance judgements.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfcompress.data.lists import training_lists
from hfcompress.data.pseudo_labels import unlabelled_splits, with_pseudo_labels
from hfcompress.data.score_text import record_score_text
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.scores import split_scores
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_encoder, load_model, model_fingerprint
from hfcompress.rankers.base import RankerOptions
from hfcompress.recipe.teacher import ScoreLabel, TeacherStep
from hfcompress.steps.context import IDENTITY, RunContext, in_words
from hfcompress.steps.workspace import StepModel
from hfcompress.training.fit import fit
from hfcompress.training.trainer import RankingTrainer
from hfcompress.utils.quiet import quiet
from hfcompress.utils.text import count

logger = logging.getLogger(__name__)
SCORES_FILE = "scores.json"


def obtain_teacher(context: RunContext) -> StepModel:
    """Train the encoder as a cross-encoder, make one of a classifier, or take the cross-encoder given."""
    step = context.recipe.teacher
    source = model_fingerprint(step.model)
    inputs = [step.model_dump(mode="json"), source, context.data.fingerprint(), context.recipe.seed]
    if step.score is not None:
        return _classifier_with_one_score(context, step, step.score, inputs)
    if step.train is None:
        return StepModel(step.model, json.dumps(inputs))
    training = step.train

    def work(folder: Path, partial: Path) -> None:
        lists = training_lists(
            context.data,
            1 + training.hard_negatives + training.random_negatives,
            training.random_negatives,
            context.recipe.seed,
            queries=training.queries,
        )
        with quiet():
            model, tokenizer = load_encoder(step.model, context.device), context.tokenizer()
        record_score_text(model.config, context.recipe.data.score_text)
        figures = fit(
            RankingTrainer,
            model,
            tokenizer,
            lists=lists,
            data=context.data,
            settings=training.optimization,
            folder=partial,
            seed=context.recipe.seed,
            progress=context.progress,
            label_loss=training.loss,
        )
        logger.info(f"teacher: {in_words(figures)}")
        save_checkpoint(folder, model, tokenizer, IDENTITY, step.max_length)

    queries = training.queries or "all"
    what = f"train {step.model} with {queries} train queries, {count(training.optimization.epochs, 'epoch')}"
    return context.workspace.step("teacher", inputs, work, what).model


def _classifier_with_one_score(context: RunContext, step: TeacherStep, score: ScoreLabel, inputs: Any) -> StepModel:
    """Make a cross-encoder of a classifier with several labels."""

    def work(folder: Path, partial: Path) -> None:
        with quiet():
            model, tokenizer = load_model(step.model, dtype="float32", score=score), context.tokenizer()
        save_checkpoint(folder, model, tokenizer, IDENTITY, step.max_length)

    what = f"make the {score.in_words} the score of {step.model}"
    return context.workspace.step("teacher", inputs, work, what).model


def grade_by_teacher(context: RunContext, teacher: StepModel) -> RunContext:
    """Grade dev and test by the teacher's own order, for data without relevance judgements.

    Returns:
        The run with graded data; unchanged in a preview whose step has not been done yet.
    """
    splits, long_documents = unlabelled_splits(context.data), context.recipe.evaluate.long_documents

    def work(folder: Path, partial: Path) -> None:
        candidate = Candidate.teacher(teacher.name, "teacher")
        options = RankerOptions(device=str(context.device), long_documents=long_documents)
        scores = {
            name: split_scores(
                candidate,
                context.data,
                name,
                max_length=context.max_length,
                options=options,
                progress=context.progress,
            )
            for name in splits
        }
        (folder / SCORES_FILE).write_text(json.dumps(scores), encoding="utf-8")

    what = f"the teacher's order of {' and '.join(splits)} stands in for relevance judgements"
    inputs: list[Any] = [teacher.fingerprint, splits]
    inputs += [] if long_documents.is_default else [long_documents.model_dump(mode="json")]
    folder = context.workspace.step("judge", inputs, work, what).path
    if not (folder / SCORES_FILE).is_file():
        return context
    scores = json.loads((folder / SCORES_FILE).read_text(encoding="utf-8"))
    return replace(context, data=with_pseudo_labels(context.data, scores))
