"""Evaluate candidates and build the report of a run: quality, verdict and speed of each."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import PretrainedConfig

from hfcompress.data.also import AlsoPart
from hfcompress.data.ranking import RankingData, Split
from hfcompress.evaluation.batch_invariance import measure_batch_invariance
from hfcompress.evaluation.benchmark import benchmark, benchmark_single_thread
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.cold_start import measure_cold_start
from hfcompress.evaluation.device_teachers import TimedTeachers, missing_teachers
from hfcompress.evaluation.metrics import (
    PRIMARY_METRIC,
    REPORTED,
    Run,
    agreement,
    first_stage_run,
    means,
    per_query,
    rank_correlation,
    run_from_scores,
    tied_share,
)
from hfcompress.evaluation.scores import query_scores
from hfcompress.evaluation.significance import compare, fixed_sequence
from hfcompress.models.adapters import adapter_folder, base_of
from hfcompress.models.architectures import architecture_of
from hfcompress.models.license import license_of
from hfcompress.models.load import PACKAGE_SCHEME, load_model, load_tokenizer, resolve
from hfcompress.models.modular import modules_of
from hfcompress.models.prompts import encode_pairs
from hfcompress.models.sentence_transformers import cross_encoder_settings
from hfcompress.rankers.base import BatchedRanker, Pair, RankerOptions
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import EvaluateStep, Recipe
from hfcompress.report.explanation import Explanation
from hfcompress.report.report import AlsoSummary, Artifact, DataSummary, FirstStage, Machine, RunReport
from hfcompress.report.speed import ColdStart, SingleThread
from hfcompress.report.structure import PruningSummary
from hfcompress.utils.device import CPU, device_title, torch_device
from hfcompress.utils.files import deflated_size_of, size_of
from hfcompress.utils.machine import cpu_flags, cpu_name, memory_gb, thread_count, versions


@dataclass(frozen=True)
class EvaluatedCandidate:
    """Results of a candidate.

    Attributes:
        artifact: Its part of the report.
        run: Its scores.
    """

    artifact: Artifact
    run: Run


def evaluate_candidates(
    candidates: list[Candidate],
    data: RankingData,
    step: EvaluateStep,
    *,
    max_length: int | None,
    seed: int = 0,
    progress: bool = True,
    split: str = "test",
    deflated: bool = False,
    sequence: Sequence[str] = (),
    stability: bool = True,
    device: str = CPU,
) -> list[EvaluatedCandidate]:
    """Evaluate all candidates side by side; the first one is the teacher.

    Quality and speed are measured apart: quality by the scores of all queries, which are known already for a model in
    fp32 that was scored before (see `query_scores`), and speed by scoring a sample of the queries in turns.

    Args:
        candidates: The models.
        data: The data.
        step: Settings of the evaluation.
        max_length: Longest input in tokens; None for that of each tokenizer.
        seed: Seed of the bootstrap.
        progress: Show a progress bar.
        split: The split.
        deflated: Also compress every file, to see what sparsity saves.
        sequence: Names of the candidates after the first in the order in which they are tested against it; by default
            their own order.
        stability: Also measure how far scores depend on the batch.
        device: Device on which scores in fp32 are computed, as PyTorch names it. Speed is measured on the device of
            each candidate, against the teacher there: see `missing_teachers`.

    Returns:
        One result for each candidate, in their order.
    """
    options = RankerOptions(step.threads, step.batch_tokens, device=device, long_documents=step.long_documents)
    timed = [*candidates, *missing_teachers(candidates)]
    rankers = [candidate.ranker(max_length, options) for candidate in timed]
    texts = _texts(timed, data)
    chosen = data.split(split)
    documents = {query: listed for query, listed in chosen.candidates.items() if listed}
    pairs_by_text = {id(text): {query: text.pairs(query, documents[query]) for query in documents} for text in texts}
    pairs_of = [pairs_by_text[id(text)] for text in texts]
    lists_of = [list(pairs.values()) for pairs in pairs_of]
    benchmarks = benchmark(
        rankers,
        data,
        split,
        rounds=step.rounds,
        latency_queries=step.latency_queries,
        progress=progress,
        texts=texts,
        most_queries=step.speed_queries,
    )
    part = slice(len(candidates), None)
    teachers = TimedTeachers(
        [timed[0], *timed[part]], [rankers[0], *rankers[part]], [benchmarks[0], *benchmarks[part]], step.confidence
    )
    count = len(candidates)
    rankers, pairs_of, lists_of, benchmarks = rankers[:count], pairs_of[:count], lists_of[:count], benchmarks[:count]
    score = partial(query_scores, max_length=max_length, options=options, parts=step.rounds, progress=progress)
    each = zip(candidates, pairs_of, rankers, [result.scores for result in benchmarks], strict=True)
    scores = [
        computed if len(computed) == len(documents) else score(candidate, pairs, ranker=ranker, computed=computed)
        for candidate, pairs, ranker, computed in each
    ]
    runs = [run_from_scores(documents, own) for own in scores]
    by_name = {candidate.name: list(own.values()) for candidate, own in zip(candidates, scores, strict=True)}
    artifacts: list[Artifact] = []
    single = _single_thread(candidates, lists_of, step, max_length, rankers[0].threads)
    parameters = _parameters(candidates, rankers)
    for candidate, ranker, lists, result, run in zip(candidates, rankers, lists_of, benchmarks, runs, strict=True):
        by_query = per_query(chosen.qrels, run, data.relevant_from, report_metrics(step))
        primary = primary_values(by_query)
        teacher = artifacts[0] if artifacts else None
        original = candidate.made_from
        correlation = None if original is None else rank_correlation(by_name[original], by_name[candidate.name])
        artifacts.append(
            Artifact(
                name=candidate.name,
                path=candidate.path,
                runtime=candidate.runtime,
                precision=candidate.precision,
                size_bytes=size_of(candidate.files()),
                deflated_bytes=deflated_size_of(candidate.files()) if deflated else None,
                parameters=parameters[candidate.folder],
                quality=means(by_query),
                per_query=primary,
                agreement=agreement(runs[0], run) if teacher else {},
                delta=(
                    compare(teacher.per_query, primary, step.margin, step.confidence, seed=seed, set_of=data.set_of)
                    if teacher
                    else None
                ),
                latency=result.latency(ranker),
                speedup=teachers.speedup(candidate, result)[0] if teacher else 1.0,
                tied_share=tied_share(run),
                stability=measure_batch_invariance(ranker, lists, correlation) if teacher and stability else None,
                speedup_interval=teachers.speedup(candidate, result)[1] if teacher else None,
                single_thread=single.get(candidate.name),
                cold_start=_cold_start(candidate, ranker, lists[0]) if step.cold_start else None,
                device=device_title(candidate.device),
                device_teachers=teachers.beside(candidate, result) if teacher else [],
            )
        )
    return [EvaluatedCandidate(artifact, run) for artifact, run in zip(_tested(artifacts, sequence), runs, strict=True)]


def primary_values(by_query: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The primary metric of each query, from the result of `per_query`."""
    return {query: values[PRIMARY_METRIC] for query, values in by_query.items()}


def first_stage_result(data: RankingData, split: Split, metrics: Sequence[str]) -> FirstStage:
    """Quality of the first-stage ranking of a split."""
    by_query = per_query(split.qrels, first_stage_run(split.candidates), data.relevant_from, metrics)
    return FirstStage(name=data.first_stage, quality=means(by_query), per_query=primary_values(by_query))


def report_metrics(step: EvaluateStep) -> list[str]:
    """Names of the metrics in `quality`: those of every report, and further ones of the step."""
    return list(dict.fromkeys((*REPORTED, *step.metrics)))


def _texts(candidates: list[Candidate], data: RankingData) -> list[RankingData]:
    """The data as each candidate reads it; one object for all candidates with the same texts."""
    formats = {candidate.score_text for candidate in candidates if candidate.score_text}
    texts = {score_text: data.with_score_text(score_text) for score_text in formats}
    return [texts[candidate.score_text] if candidate.score_text else data for candidate in candidates]


def _tested(artifacts: list[Artifact], sequence: Sequence[str]) -> list[Artifact]:
    """Artifacts with the verdicts of tests in a fixed sequence."""
    compared = {each.name: each.delta for each in artifacts if each.delta}
    order = list(sequence or compared)
    deltas = dict(zip(order, fixed_sequence([compared[name] for name in order]), strict=True))
    return [each.model_copy(update={"delta": deltas[each.name]}) if each.delta else each for each in artifacts]


def build_report(
    recipe: Recipe,
    data: RankingData,
    config: PretrainedConfig,
    pruning: PruningSummary | None,
    results: list[Artifact],
    explanation: Explanation | None = None,
    sequence: Sequence[str] = (),
    also: Sequence[AlsoPart] = (),
) -> RunReport:
    """Build the report of a run; its steps are added when the run ends."""
    return RunReport(
        name=recipe.name,
        base_model=base_model_name(recipe),
        model_type=architecture_of(config).model_type,
        modular=bool(modules_of(config)),
        license=license_for(recipe),
        max_length=recipe.teacher.max_length,
        query_prompt=cross_encoder_settings(resolve(recipe.teacher.model)).prompts.text,
        recipe=recipe.text,
        primary_metric=PRIMARY_METRIC,
        data=summarize_data(recipe, data, also),
        pruning=pruning,
        first_stage=first_stage_result(data, data.split("test"), report_metrics(recipe.evaluate)),
        teacher=results[0],
        artifacts=results[1:],
        steps=[],
        machine=describe_machine(torch_device(recipe.device)),
        explanation=explanation,
        sequence=list(sequence),
        long_documents=None if recipe.evaluate.long_documents.is_default else recipe.evaluate.long_documents,
    )


def base_model_name(recipe: Recipe) -> str:
    """Name of the original model in the card: its Hub id, or a description that is no Hub id.

    That of an adapter is its base model.
    """
    step = recipe.teacher
    if step.base_model:
        return step.base_model
    adapter = adapter_folder(step.model)
    name = step.model if adapter is None else base_of(adapter)
    if name.startswith(PACKAGE_SCHEME) or Path(name).exists():
        return f"a local model ({Path(name).name})"
    return name


def license_for(recipe: Recipe) -> str:
    """Licence of the compressed model: that of the recipe, else that of the original model's card; empty for none."""
    return recipe.publish.license or license_of(recipe.teacher.model)


def summarize_data(recipe: Recipe, data: RankingData, also: Sequence[AlsoPart] = ()) -> DataSummary:
    """Summarize the data, the lengths of its test pairs, and the additional texts of the recovery."""
    test = data.split("test")
    tokenizer = load_tokenizer(recipe.teacher.model)
    pairs = [pair for query, documents in test.candidates.items() for pair in data.pairs(query, documents)]
    encoded = encode_pairs(
        tokenizer, [query for query, _ in pairs], [document for _, document in pairs], return_length=True
    )
    lengths, limit = encoded["length"], recipe.teacher.max_length
    return DataSummary(
        name=data.name,
        fingerprint=data.fingerprint(),
        license=data.license,
        language=data.language,
        publish_texts=data.publish_texts,
        queries={name: len(split) for name, split in data.splits.items()},
        documents=len(data.corpus),
        candidates_per_query=len(pairs) / len(test),
        mean_tokens=sum(min(length, limit) for length in lengths) / len(lengths),
        truncated_share=sum(length > limit for length in lengths) / len(lengths),
        notes=list(data.notes),
        score_text=data.score_text.settings if data.score_text else None,
        also=[
            AlsoSummary(name=each.name, documents=each.documents, lists=each.queries, license=each.license)
            for each in also
        ],
    )


def describe_machine(device: str | torch.device = CPU) -> Machine:
    """Hardware and software of this machine.

    Args:
        device: Device that models in PyTorch were trained and scored on.
    """
    return Machine(
        cpu=cpu_name(),
        flags=cpu_flags(),
        cores=thread_count(),
        memory_gb=memory_gb(),
        platform=f"{platform.system()} {platform.machine()}",
        versions=versions(),
        device=device_title(device),
    )


def _parameters(candidates: list[Candidate], rankers: list[BatchedRanker]) -> dict[str, int]:
    """Number of parameters of the model in each folder; loaded models are reused."""
    models = {
        candidate.folder: ranker.model
        for candidate, ranker in zip(candidates, rankers, strict=True)
        if isinstance(ranker, TorchRanker)
    }
    return {
        folder: sum(parameter.numel() for parameter in (models.get(folder) or load_model(folder)).parameters())
        for folder in {candidate.folder for candidate in candidates}
    }


def _single_thread(
    candidates: list[Candidate],
    lists: list[list[list[Pair]]],
    step: EvaluateStep,
    max_length: int | None,
    threads: int,
) -> dict[str, SingleThread]:
    """Speed on one thread, by the candidate's name; empty if the whole evaluation runs on one thread."""
    if threads == 1 or not step.single_thread_queries or candidates[0].device != CPU:
        return {}
    chosen = [number for number, each in enumerate(candidates) if each.device == CPU]
    candidates, lists = [candidates[number] for number in chosen], [lists[number] for number in chosen]
    options = RankerOptions(1, step.batch_tokens, long_documents=step.long_documents)
    rankers = [candidate.ranker(max_length, options) for candidate in candidates]
    results = benchmark_single_thread(rankers, [own[: step.single_thread_queries] for own in lists], step.confidence)
    return {candidate.name: result for candidate, result in zip(candidates, results, strict=True)}


def _cold_start(candidate: Candidate, ranker: BatchedRanker, pairs: list[Pair]) -> ColdStart | None:
    if candidate.device != CPU or candidate.dtype != "float32":  # what the process would load is another model
        return None
    return measure_cold_start(ranker, candidate.folder, candidate.runtime, candidate.file, pairs)
