"""Evaluate what no run of this moment made: any cross-encoder or run file, alone or against another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from pydantic import BaseModel

from hfcompress.data.load import load_data
from hfcompress.data.ranking import SPLITS, RankingData, Split
from hfcompress.data.score_text import score_text_of
from hfcompress.data.trec_run import check_ids, check_target, write_run
from hfcompress.errors import DataError
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.measures import measure_of
from hfcompress.evaluation.metrics import (
    Run,
    agreement,
    first_stage_run,
    means,
    per_query,
    ranking,
    tied_share,
    without_relevant,
)
from hfcompress.evaluation.report import Artifact, Delta, FirstStage, Machine
from hfcompress.evaluation.results import PRIMARY_METRIC, machine, measure_candidates, reported
from hfcompress.evaluation.significance import compare
from hfcompress.evaluation.subjects import RunFile, Subject, restricted, same_documents, subject_of
from hfcompress.models import load_config, load_tokenizer, position_limit
from hfcompress.rankers.load import Runtime
from hfcompress.recipe import DataStep, EvaluateStep, SplitLimits


class RunFigures(BaseModel):
    """Quality of a run file, which has no speed and no size; the names are those of an artefact.

    Attributes:
        missing_queries: Judged queries that the run lacks; they score 0.
    """

    name: str
    path: str
    quality: dict[str, float]
    per_query: dict[str, float]
    agreement: dict[str, float]
    delta: Delta | None
    tied_share: float
    missing_queries: int


class Evaluation(BaseModel):
    """Result of one evaluation; the baseline, if there is one, comes first in `artifacts`.

    Attributes:
        queries_without_relevant: Judged queries without a relevant document; they are left out of every figure.
    """

    data: str
    fingerprint: str
    split: str
    queries_without_relevant: int
    first_stage: FirstStage
    artifacts: list[Artifact | RunFigures]
    machine: Machine


def evaluate_models(
    model: str,
    baseline: str | None,
    sets: list[str],
    split: str,
    runtime: str | None = None,
    max_length: int | None = None,
    max_queries: int | None = None,
    candidates: int = 20,
    margin: float = 0.01,
    progress: bool = True,
    metrics: Sequence[str] = (),
    run_file: Path | None = None,
) -> Evaluation:
    """Measure a model or a run file, and a baseline (a model in PyTorch fp32), on the same candidates.

    A model that was made to read BM25 scores (`score_text` in its config) gets them over the corpus of the data.

    Args:
        model: A folder, a Hub id, a file in a folder, or a run file.
        baseline: What to compare with; None measures the model alone.
        sets: As `data.sets` in a recipe.
        split: The split.
        runtime: Where the model runs; its fastest file by default.
        max_length: Longest input in tokens; by default the model's, at most its positions.
        max_queries: At most so many queries.
        candidates: Documents to rank for a query.
        margin: Largest loss in nDCG@10 that counts as ranking as well.
        progress: Show progress bars.
        metrics: Metrics beside those of a report.
        run_file: Where to write the model's ranking, as trec_eval reads it.

    Raises:
        HfCompressError: A model, a run file or the data cannot be used.
    """
    subject = subject_of(model, "model", cast(Runtime | None, runtime))
    limit = max_length
    if limit is None and isinstance(subject, Candidate):
        name = subject.folder
        limit = min(load_tokenizer(name).model_max_length, position_limit(load_config(name)))
    subjects = [subject]
    if baseline is not None:
        file = Path(baseline).is_file()
        subjects.insert(0, subject_of(baseline, "baseline", None if file else "torch"))
    return _evaluate(subjects, sets, split, limit, max_queries, candidates, margin, progress, metrics, run_file)


def compare_rankers(
    first: str,
    second: str,
    sets: list[str],
    split: str,
    max_length: int | None = None,
    max_queries: int | None = None,
    candidates: int = 20,
    margin: float = 0.01,
    progress: bool = True,
    metrics: Sequence[str] = (),
) -> Evaluation:
    """Compare a ranker with another one, query by query, on the same candidates; scores as for `evaluate_models`.

    Args:
        first: What the other is compared with: a folder, a Hub id, a file in a folder, or a run file. A folder stands
            for its fastest file.
        second: What is judged.
        sets: As `data.sets` in a recipe.
        split: The split.
        max_length: Longest input in tokens; by default that of each model.
        max_queries: At most so many queries.
        candidates: Documents to rank for a query.
        margin: Largest loss in nDCG@10 that counts as ranking as well.
        progress: Show progress bars.
        metrics: Metrics beside those of a report.

    Raises:
        HfCompressError: A model, a run file or the data cannot be used.
    """
    subjects = [subject_of(name, name) for name in (first, second)]
    return _evaluate(subjects, sets, split, max_length, max_queries, candidates, margin, progress, metrics)


def _evaluate(
    subjects: list[Subject],
    sets: list[str],
    split: str,
    max_length: int | None,
    max_queries: int | None,
    candidates: int,
    margin: float,
    progress: bool,
    metrics: Sequence[str],
    run_file: Path | None = None,
) -> Evaluation:
    step = EvaluateStep(metrics=list(metrics), cold_start=False, single_thread_queries=0)
    names = reported(step)
    for name in names:
        measure_of(name)
    if not margin > 0:
        raise DataError("The margin does not fit", value=margin, expected="a margin above 0", remedy="correct --margin")
    if run_file:
        check_target(run_file)
    # The other splits are not looked at: one query keeps them valid, and candidates for more need not be retrieved.
    limits = SplitLimits(**{**dict.fromkeys(SPLITS, 1), split: max_queries})
    data = load_data(DataStep(sets=sets, candidates=candidates, max_queries=limits), progress)
    chosen = data.split(split)
    stage = per_query(chosen.qrels, first_stage_run(chosen.candidates), data.relevant_from, names)
    if len(subjects) > 1 and len(stage) < 2:
        raise DataError(
            "One query gives no interval and no verdict",
            value=f"{len(stage)} with a relevant document",
            expected="at least 2 queries; a few hundred for a verdict that decides something",
            remedy="raise --max-queries, or add queries",
        )
    runs: dict[int, Run] = {
        place: restricted(each, chosen) for place, each in enumerate(subjects) if isinstance(each, RunFile)
    }
    if run_file and isinstance(subjects[-1], Candidate):
        check_ids(chosen.candidates)
    models = [_as_it_reads(subject) for subject in subjects if isinstance(subject, Candidate)]
    if len(subjects) > 1 and runs:
        same_documents({subjects[place].path: run for place, run in runs.items()}, chosen if models else None)
    step = step.model_copy(update={"margin": margin})
    measured = measure_candidates(models, data, step, max_length, 0, progress, split) if models else []
    rest = iter(measured)
    artifacts: list[Artifact | RunFigures] = []
    for place, subject in enumerate(subjects):
        if isinstance(subject, RunFile):
            artifacts.append(_figures(subject, runs[place], data, chosen, names))
        else:
            found = next(rest)
            artifacts.append(found.artifact)
            runs[place] = found.run
    if len(subjects) > 1 and len(models) < len(subjects):
        first_values, values = (artifact.per_query for artifact in artifacts)
        delta = compare(first_values, values, margin, step.confidence, set_of=data.set_of)
        changes = {"delta": delta, "agreement": agreement(runs[0], runs[1])}
        artifacts[1] = artifacts[1].model_copy(update=changes)
    if run_file:
        run = runs[len(subjects) - 1]
        orders = {query: ranking(scores) for query, scores in run.items()}
        write_run(run_file, run, orders, Path(subjects[-1].path).name)
    return Evaluation(
        data=data.name,
        fingerprint=data.fingerprint(),
        split=split,
        queries_without_relevant=len(without_relevant(chosen.qrels)),
        first_stage=FirstStage(
            name=data.first_stage,
            quality=means(stage),
            per_query={query: row[PRIMARY_METRIC] for query, row in stage.items()},
        ),
        artifacts=artifacts,
        machine=machine(),
    )


def _as_it_reads(model: Candidate) -> Candidate:
    """A model, with the scores in its texts that its config asks for: two that are compared may read otherwise."""
    return replace(model, score_text=score_text_of(load_config(model.folder)))


def _figures(run: RunFile, scores: Run, data: RankingData, chosen: Split, names: Sequence[str]) -> RunFigures:
    values = per_query(chosen.qrels, scores, data.relevant_from, names)
    return RunFigures(
        name=run.name,
        path=run.path,
        quality=means(values),
        per_query={query: row[PRIMARY_METRIC] for query, row in values.items()},
        agreement={},
        delta=None,
        tied_share=tied_share(scores),
        missing_queries=sum(query not in scores for query in values),
    )
