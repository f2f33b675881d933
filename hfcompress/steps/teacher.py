"""The first step: an encoder becomes a cross-encoder, or one is taken as it is; its order may stand for judgements."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from hfcompress.checkpoint import save_checkpoint
from hfcompress.data.graded import graded_by_order, unjudged
from hfcompress.data.lists import training_lists
from hfcompress.data.score_text import record_score_text
from hfcompress.evaluation.metrics import scores_of_split
from hfcompress.markdown import count
from hfcompress.models import load_encoder, load_model, model_fingerprint
from hfcompress.quiet import quiet
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.steps.base import IDENTITY, Run, in_words
from hfcompress.training.fit import fit
from hfcompress.training.trainer import RankingTrainer


def train_teacher(current: Run) -> tuple[str, str]:
    """Train the encoder as a cross-encoder, or take the cross-encoder given.

    Returns:
        Name of the teacher, as models are loaded, and a fingerprint.
    """
    step = current.recipe.teacher
    inputs = [
        step.model_dump(mode="json"),
        model_fingerprint(step.model),
        current.data.fingerprint(),
        current.recipe.seed,
    ]
    if step.train is None:
        return step.model, json.dumps(inputs)
    training = step.train

    def work(folder: Path, partial: Path) -> None:
        lists = training_lists(
            current.data,
            1 + training.hard_negatives + training.random_negatives,
            training.random_negatives,
            current.recipe.seed,
            queries=training.queries,
        )
        with quiet():
            model, tokenizer = load_encoder(step.model), current.tokenizer()
        record_score_text(model.config, current.recipe.data.score_text)
        figures = fit(
            RankingTrainer,
            model,
            tokenizer,
            lists,
            current.data,
            training.optimization,
            partial,
            current.recipe.seed,
            current.progress,
            label_loss=training.loss,
        )
        current.workspace.say(f"teacher: {in_words(figures)}")
        save_checkpoint(folder, model, tokenizer, IDENTITY, step.max_length)

    queries = training.queries or "all"
    what = f"train {step.model} with {queries} train queries, {count(training.optimization.epochs, 'epoch')}"
    folder, fingerprint = current.workspace.step("teacher", inputs, work, what)
    return str(folder), fingerprint


def judge(current: Run, teacher: str, teacher_of: str) -> Run:
    """Grade dev and test by the teacher's own order, where the data has no judgements.

    Returns:
        The run, with data that is graded; as it was, where a preview finds that the step is still ahead.
    """
    splits = unjudged(current.data)

    def work(folder: Path, partial: Path) -> None:
        ranker = TorchRanker(load_model(teacher, dtype="float32"), current.tokenizer(), lambda logits: logits)
        scores = {name: scores_of_split(ranker, current.data, name) for name in splits}
        (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")

    what = f"the teacher's order of {' and '.join(splits)} stands for judgements"
    folder, _ = current.workspace.step("judge", [teacher_of, splits], work, what)
    if not (folder / "scores.json").is_file():
        return current
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return replace(current, data=graded_by_order(current.data, scores))
