"""The step that measures what the artifact to deploy keeps outside the domain of the run."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from torch import nn

from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.metrics import Run, scores_of_split
from hfcompress.evaluation.scores import split_scores
from hfcompress.evaluation.zero_shot import Quality, compare_sets, mean, quality_of, runs_of
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.models.prompts import prompts_of
from hfcompress.rankers.base import Ranker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.report.report import RunReport
from hfcompress.report.zero_shot import VocabularyEffect, VocabularyLoss, ZeroShot
from hfcompress.steps.context import RunContext
from hfcompress.steps.evaluate import SEQUENCE_FILE, candidates_of
from hfcompress.steps.workspace import StepFolder, StepModel
from hfcompress.utils.files import write_text
from hfcompress.utils.progress import progress_bar
from hfcompress.vocabulary.coverage import coverage
from hfcompress.vocabulary.prune import restore_vocabulary

RESULT_FILE = "zero_shot.json"
WHOLE = "student with the whole vocabulary"


def zero_shot(
    context: RunContext, teacher: StepModel, checkpoint: StepFolder, sequence: StepFolder, evaluated: StepFolder
) -> StepFolder:
    """Compare the artifact to deploy with the teacher on the zero-shot sets.

    Args:
        context: The run.
        teacher: The teacher.
        checkpoint: Folder with the student and its graphs.
        sequence: Folder with the order of the tests; the first artifact is the one to deploy.
        evaluated: Folder with the report, for the quality in domain.

    Returns:
        Folder with the result, which `load_result` reads.
    """
    recipe, sets = context.recipe, context.zero_shot

    def work(folder: Path, _: Path) -> None:
        names = json.loads((sequence.path / SEQUENCE_FILE).read_text(encoding="utf-8"))
        candidates = {
            each.name: each for each in candidates_of(recipe, teacher.name, checkpoint.path, str(context.device))
        }
        student = Candidate.student(checkpoint.path).name
        ranked = dict.fromkeys(("teacher", names[0], *([student] if recipe.prune else [])))
        scoring = partial(
            split_scores,
            split="test",
            max_length=context.max_length,
            options=context.options,
            progress=context.progress,
        )
        runs = {name: runs_of(partial(scoring, candidates[name]), sets) for name in ranked}
        beside = runs[student] if recipe.prune and names[0] != student else None
        results, pooled = compare_sets(sets, runs["teacher"], runs[names[0]], beside, recipe.evaluate, recipe.seed)
        effect = None
        if recipe.prune and recipe.prune.vocabulary:
            effect = _vocabulary_effect(context, teacher, checkpoint, evaluated, runs["teacher"], runs[student])
        found = ZeroShot(artifact=names[0], sets=results, pooled=pooled, vocabulary=effect)
        write_text(folder / RESULT_FILE, found.model_dump_json(indent=2) + "\n")

    included = {"margin", "confidence", "batch_tokens", "long_documents"}
    settings = recipe.evaluate.model_dump(mode="json", include=included)
    known = [[data.name, data.fingerprint(), data.license, data.notes] for data in sets]
    queries = ", ".join(f"{len(data.split('test'))} of {data.name}" for data in sets)
    return context.workspace.step(
        "zero-shot",
        [settings, known, checkpoint.fingerprint, sequence.fingerprint],
        work,
        f"teacher and the artifact to deploy on test queries of other data: {queries}",
    )


def load_result(folder: Path) -> ZeroShot:
    """Read the result from the folder of the step."""
    return ZeroShot.model_validate_json((folder / RESULT_FILE).read_bytes())


def _vocabulary_effect(
    context: RunContext,
    teacher: StepModel,
    checkpoint: StepFolder,
    evaluated: StepFolder,
    teacher_runs: list[Run],
    student_runs: list[Run],
) -> VocabularyEffect:
    """Compare the student with the same student with the whole vocabulary, in and outside the domain."""
    report = RunReport.load(evaluated.path)
    student = next(each for each in report.artifacts if each.name == Candidate.student(checkpoint.path).name)
    own, outside = context.data, context.zero_shot
    scoring = partial(scores_of_split, _whole(context, teacher, checkpoint), split="test")
    sets = progress_bar([own, *outside], desc=WHOLE, unit="set", disable=not context.progress, leave=False)
    run, *runs = runs_of(scoring, sets)

    def loss(data: RankingData, before: Quality, cut: Quality, whole: Run) -> VocabularyLoss:
        return VocabularyLoss(
            queries=len(before),
            changed_share=_changed_share(context, checkpoint, data),
            cut=mean(cut) - mean(before),
            whole=mean(quality_of(data, whole)) - mean(before),
        )

    return VocabularyEffect(
        in_domain=loss(own, report.teacher.per_query, student.per_query, run),
        sets={
            data.name: loss(data, quality_of(data, before), quality_of(data, cut), whole)
            for data, before, cut, whole in zip(outside, teacher_runs, student_runs, runs, strict=True)
        },
    )


def _whole(context: RunContext, teacher: StepModel, checkpoint: StepFolder) -> Ranker:
    """The student with the teacher's embeddings for the tokens that were removed."""
    whole, tokenizer = load_model(teacher.name, dtype="float32"), context.tokenizer()
    student = load_model(checkpoint.model.name, dtype="float32")
    cut = load_tokenizer(checkpoint.model.name, context.max_length)
    restored = restore_vocabulary(student, cut, whole, tokenizer)
    nn.Module.to(restored, context.device)
    return TorchRanker(restored, tokenizer, options=context.options)


def _changed_share(context: RunContext, checkpoint: StepFolder, data: RankingData) -> float:
    """Share of the test pairs that the tokenizer of the student splits otherwise than that of the teacher."""
    before, after = context.tokenizer(), load_tokenizer(checkpoint.model.name, context.max_length)
    prompt = prompts_of(before).text
    listed = data.split("test").candidates.items()
    pairs = [(prompt + query, text) for each in listed for query, text in data.pairs(*each)]
    return coverage(before, after, pairs, context.progress).changed
