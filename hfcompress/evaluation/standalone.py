"""Evaluation outside a run: any cross-encoder or run file, alone or against another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from hfcompress.data.load import load_data
from hfcompress.data.ranking import SPLITS, RankingData, Split
from hfcompress.data.score_text import score_text_of
from hfcompress.data.trec_run import check_ids, check_target, write_run
from hfcompress.errors import DataError
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.metric_definitions import metric_definition
from hfcompress.evaluation.metrics import Run, agreement, means, per_query, ranking, tied_share, without_relevant
from hfcompress.evaluation.results import (
    describe_machine,
    evaluate_candidates,
    first_stage_result,
    primary_values,
    report_metrics,
)
from hfcompress.evaluation.significance import compare
from hfcompress.evaluation.systems import (
    RunFile,
    System,
    check_same_documents,
    placed_systems,
    resolve_system,
    run_of_split,
)
from hfcompress.evaluation.thresholds import fidelity_at, read_thresholds
from hfcompress.models.load import load_config
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import Runtime, ranking_tokenizer
from hfcompress.recipe import TRUNCATED, DataStep, EvaluateStep, LongDocuments, SplitLimits
from hfcompress.report.fidelity import ScoreFidelity
from hfcompress.report.report import Artifact, Delta, FirstStage, Machine
from hfcompress.utils.device import torch_device
from hfcompress.utils.settings import Closed


class RunFileResult(Closed):
    """Quality of a run file, which has neither speed nor size; the attributes are those of an `Artifact`.

    Attributes:
        missing_queries: Number of judged queries that the run lacks; they score 0.
    """

    name: str
    path: str
    quality: dict[str, float]
    per_query: dict[str, float]
    agreement: dict[str, float]
    delta: Delta | None
    tied_share: float
    missing_queries: int


class Evaluation(Closed):
    """Result of an evaluation. A baseline comes first in `artifacts`.

    Attributes:
        queries_without_relevant: Number of judged queries without a relevant document; no metric includes them.
        score_fidelity: The model's scores against the baseline's at the thresholds that were asked for; None without.
        long_documents: How documents were read that do not fit into one input; None if they were truncated.
    """

    data: str
    fingerprint: str
    split: str
    queries_without_relevant: int
    first_stage: FirstStage
    artifacts: list[Artifact | RunFileResult]
    machine: Machine
    score_fidelity: ScoreFidelity | None = None
    long_documents: LongDocuments | None = None


def evaluate_models(
    model: str,
    baseline: str | None,
    sets: list[str],
    split: str,
    *,
    runtime: str | None = None,
    max_length: int | None = None,
    max_queries: int | None = None,
    candidates: int = 20,
    margin: float = 0.01,
    progress: bool = True,
    metrics: Sequence[str] = (),
    run_file: Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    providers: Sequence[str] = (),
    thresholds: Sequence[str] = (),
    long_documents: LongDocuments | None = None,
) -> Evaluation:
    """Evaluate a model or a run file, and optionally a baseline, on the same candidates.

    A model whose config has `score_text` reads BM25 scores, computed over the corpus of the data.

    Args:
        model: A folder, a Hub id, a file in a folder, or a run file.
        baseline: A model (in PyTorch fp32) or a run file to compare with; None evaluates the model alone.
        sets: Data sets, as `data.sets` in a recipe.
        split: The split.
        runtime: Runtime of the model; by default that of its fastest file.
        max_length: Longest input in tokens; by default the model's, at most its positions.
        max_queries: Largest number of queries.
        candidates: Number of documents to rank for a query.
        margin: Non-inferiority margin: the largest acceptable loss in nDCG@10.
        progress: Show progress bars.
        metrics: Further metrics besides those of a report.
        run_file: Where to write the model's ranking, in trec_eval's format.
        device: Device of models in PyTorch. Both are timed on the CPU if one of them is a graph for it.
        dtype: Precision of the model in PyTorch; the baseline is in fp32, and timed in this precision, too.
        providers: Execution providers of ONNX Runtime for the model, the preferred one first.
        thresholds: Thresholds on the scores at which the model is compared with the baseline, as numbers, or `best`
            for the baseline's best on dev.
        long_documents: How all models read documents that do not fit into one input; truncated by default.

    Raises:
        HfCompressError: A model, a run file or the data cannot be used.
    """
    system = resolve_system(model, "model", cast(Runtime | None, runtime))
    if max_length is None and isinstance(system, Candidate):
        max_length = ranking_tokenizer(system.folder, load_config(system.folder)).model_max_length
    systems = [system]
    if baseline is not None:
        file = Path(baseline).is_file()
        systems.insert(0, resolve_system(baseline, "baseline", None if file else "torch"))
    return evaluate_systems(
        systems,
        sets,
        split,
        max_length=max_length,
        max_queries=max_queries,
        candidates=candidates,
        margin=margin,
        progress=progress,
        metrics=metrics,
        run_file=run_file,
        device=device,
        dtype=dtype,
        providers=providers,
        thresholds=thresholds,
        long_documents=long_documents,
    )


def evaluate_systems(
    systems: list[System],
    sets: list[str],
    split: str,
    *,
    max_length: int | None = None,
    max_queries: int | None = None,
    candidates: int = 20,
    margin: float = 0.01,
    progress: bool = True,
    metrics: Sequence[str] = (),
    run_file: Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    providers: Sequence[str] = (),
    thresholds: Sequence[str] = (),
    long_documents: LongDocuments | None = None,
) -> Evaluation:
    """Evaluate one system, or compare two query by query; the first of two is the baseline.

    The other arguments are those of `evaluate_models`; by default each model reads its own longest input.

    Raises:
        HfCompressError: A model, a run file or the data cannot be used.
    """
    systems = placed_systems(systems, device, dtype, providers)
    step = EvaluateStep(
        metrics=list(metrics),
        cold_start=False,
        single_thread_queries=0,
        long_documents=long_documents or TRUNCATED,
    )
    names = report_metrics(step)
    for name in names:
        metric_definition(name)
    if not margin > 0:
        raise DataError("The margin does not fit", value=margin, expected="a margin above 0", remedy="correct --margin")
    asked = read_thresholds(thresholds, systems)
    if run_file:
        check_target(run_file)
    # The other splits are unused: one query keeps them valid, and no candidates are retrieved for more.
    used = [split, "dev"] if asked and asked.best else [split]
    limits = SplitLimits(**{**dict.fromkeys(SPLITS, 1), **dict.fromkeys(used, max_queries)})
    data = load_data(DataStep(sets=sets, candidates=candidates, max_queries=limits), progress)
    chosen, *_ = [data.split(name) for name in used]
    first_stage = first_stage_result(data, chosen, names)
    compared = len(systems) > 1
    if compared and len(first_stage.per_query) < 2:
        raise DataError(
            "One query gives no interval and no verdict",
            value=f"{len(first_stage.per_query)} with a relevant document",
            expected="at least 2 queries; a few hundred for a conclusive verdict",
            remedy="raise --max-queries, or add queries",
        )
    runs: dict[int, Run] = {
        index: run_of_split(each, chosen) for index, each in enumerate(systems) if isinstance(each, RunFile)
    }
    if run_file and isinstance(systems[-1], Candidate):
        check_ids(chosen.candidates)
    models = [
        replace(each, score_text=score_text_of(load_config(each.folder)))  # in which two models may differ
        for each in systems
        if isinstance(each, Candidate)
    ]
    if compared and runs:
        check_same_documents({systems[index].path: run for index, run in runs.items()}, chosen if models else None)
    step = step.model_copy(update={"margin": margin})
    evaluated = iter(
        evaluate_candidates(
            models,
            data,
            step,
            max_length=max_length,
            progress=progress,
            split=split,
            device=str(torch_device(device)),
        )
        if models
        else ()
    )
    artifacts: list[Artifact | RunFileResult] = []
    for index, system in enumerate(systems):
        if isinstance(system, RunFile):
            artifacts.append(_run_file_result(system, runs[index], data, chosen, names))
        else:
            result = next(evaluated)
            artifacts.append(result.artifact)
            runs[index] = result.run
    if compared and len(models) < len(systems):
        before, after = (artifact.per_query for artifact in artifacts)
        delta = compare(before, after, margin, step.confidence, set_of=data.set_of)
        changes = {"delta": delta, "agreement": agreement(runs[0], runs[1])}
        artifacts[1] = artifacts[1].model_copy(update=changes)
    fidelity = None
    if asked:
        scored = [runs[index] for index in range(len(systems))]
        options = RankerOptions(step.threads, step.batch_tokens, device=str(torch_device(device)))
        fidelity = fidelity_at(
            asked, models, scored, data, split, max_length=max_length, options=options, progress=progress
        )
    if run_file:
        run = runs[len(systems) - 1]
        orders = {query: ranking(scores) for query, scores in run.items()}
        write_run(run_file, run, orders, Path(systems[-1].path).name)
    return Evaluation(
        data=data.name,
        fingerprint=data.fingerprint(),
        split=split,
        queries_without_relevant=len(without_relevant(chosen.qrels)),
        first_stage=first_stage,
        artifacts=artifacts,
        machine=describe_machine(torch_device(device)),
        score_fidelity=fidelity,
        long_documents=None if step.long_documents.is_default else step.long_documents,
    )


def _run_file_result(
    run: RunFile, scores: Run, data: RankingData, chosen: Split, names: Sequence[str]
) -> RunFileResult:
    by_query = per_query(chosen.qrels, scores, data.relevant_from, names)
    return RunFileResult(
        name=run.name,
        path=run.path,
        quality=means(by_query),
        per_query=primary_values(by_query),
        agreement={},
        delta=None,
        tied_share=tied_share(scores),
        missing_queries=sum(query not in scores for query in by_query),
    )
