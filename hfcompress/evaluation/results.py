"""From measured rankers to the report: every candidate of a run, its quality, its verdict and its speed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PretrainedConfig

from hfcompress.architectures import architecture_of
from hfcompress.data.ranking import RankingData
from hfcompress.data.score_text import with_score_text
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.cold_start import measure_cold_start
from hfcompress.evaluation.explanation import Explanation
from hfcompress.evaluation.measure import Measurement, measure, measure_single_thread
from hfcompress.evaluation.metrics import (
    REPORTED,
    Run,
    agreement,
    first_stage_run,
    means,
    per_query,
    rank_correlation,
    tied_share,
)
from hfcompress.evaluation.report import Artifact, DataSummary, FirstStage, Machine, RunReport
from hfcompress.evaluation.schema import Interval
from hfcompress.evaluation.significance import compare, holm
from hfcompress.evaluation.speed import ColdStart, SingleThread
from hfcompress.evaluation.stability import measure_stability
from hfcompress.evaluation.structure import PruningSummary
from hfcompress.files import deflated_size_of, size_of
from hfcompress.machine import cpu_flags, cpu_name, memory_gb, thread_count, versions
from hfcompress.models import PACKAGE_SCHEME, license_of, load_model, load_tokenizer
from hfcompress.rankers.base import BatchedRanker, Pair, RankerOptions
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import EvaluateStep, Recipe

PRIMARY_METRIC = "ndcg@10"


@dataclass(frozen=True)
class Measured:
    """What was measured of a candidate.

    Attributes:
        artifact: For the report.
        run: Its scores.
    """

    artifact: Artifact
    run: Run


def measure_candidates(
    candidates: list[Candidate],
    data: RankingData,
    step: EvaluateStep,
    max_length: int | None,
    seed: int,
    progress: bool = True,
    split: str = "test",
    deflated: bool = False,
) -> list[Measured]:
    """Measure all candidates side by side; the first one is the teacher.

    Args:
        candidates: What to measure.
        data: The data.
        step: How.
        max_length: Longest input in tokens; None for that of each tokenizer.
        seed: Seed of the bootstrap.
        progress: Show a progress bar.
        split: The split.
        deflated: Compress every file too, to see what zeros save.

    Returns:
        One artefact and one run for each candidate, in their order.
    """
    options = RankerOptions(step.threads, step.batch_tokens)
    rankers = [candidate.ranker(max_length, options) for candidate in candidates]
    texts = _texts(candidates, data)
    measured = measure(rankers, data, split, step.rounds, step.latency_queries, progress, texts)
    chosen = data.split(split)
    judged = {query: documents for query, documents in chosen.candidates.items() if documents}
    made = {id(each): [each.pairs(*listed) for listed in judged.items()] for each in texts}
    lists_of = [made[id(each)] for each in texts]
    scores = {
        candidate.name: list(found.scores.values()) for candidate, found in zip(candidates, measured, strict=True)
    }
    runs = [measurement.run(judged) for measurement in measured]
    results: list[Artifact] = []
    single = _single_thread(candidates, lists_of, step, max_length, rankers[0].threads)
    parameters = _parameters(candidates, rankers)
    for candidate, ranker, lists, measurement, run in zip(candidates, rankers, lists_of, measured, runs, strict=True):
        by_query = per_query(chosen.qrels, run, data.relevant_from, reported(step))
        primary = {query: values[PRIMARY_METRIC] for query, values in by_query.items()}
        first = results[0] if results else None
        of = candidate.made_from
        kept = None if of is None else rank_correlation(scores[of], scores[candidate.name])
        results.append(
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
                agreement=agreement(runs[0], run) if first else {},
                delta=(
                    compare(first.per_query, primary, step.margin, step.confidence, seed=seed, set_of=data.set_of)
                    if first
                    else None
                ),
                latency=measurement.latency(ranker),
                speedup=_speedup(measurement, measured[0]),
                tied_share=tied_share(run),
                stability=measure_stability(ranker, lists, kept) if first else None,
                speedup_interval=_speedup_interval(measurement, measured[0], step.confidence),
                single_thread=single.get(candidate.name),
                cold_start=_cold_start(candidate, ranker, lists[0]) if step.cold_start else None,
            )
        )
    return [Measured(artifact, run) for artifact, run in zip(_corrected(results), runs, strict=True)]


def reported(step: EvaluateStep) -> list[str]:
    """Metrics in `quality`: those of every report, and what the step asks for besides."""
    return list(dict.fromkeys((*REPORTED, *step.metrics)))


def _texts(candidates: list[Candidate], data: RankingData) -> list[RankingData]:
    """The data as each candidate reads it; the same object for all that read alike."""
    asked = {candidate.score_text for candidate in candidates if candidate.score_text}
    made = {settings: with_score_text(data, settings) for settings in asked}
    return [made[candidate.score_text] if candidate.score_text else data for candidate in candidates]


def _corrected(results: list[Artifact]) -> list[Artifact]:
    """The verdicts corrected for the number of artefacts that are compared."""
    deltas = iter(holm([artifact.delta for artifact in results if artifact.delta]))
    return [artifact.model_copy(update={"delta": next(deltas)}) if artifact.delta else artifact for artifact in results]


def build_report(
    recipe: Recipe,
    data: RankingData,
    config: PretrainedConfig,
    pruning: PruningSummary | None,
    results: list[Artifact],
    explanation: Explanation | None = None,
) -> RunReport:
    """Put everything measured into one report; steps are added when the run ends."""
    test = data.split("test")
    first = per_query(test.qrels, first_stage_run(test.candidates), data.relevant_from, reported(recipe.evaluate))
    return RunReport(
        name=recipe.name,
        base_model=base_model_name(recipe),
        model_type=architecture_of(config).model_type,
        license=license_for(recipe),
        max_length=recipe.teacher.max_length,
        recipe=recipe.text,
        primary_metric=PRIMARY_METRIC,
        data=summarize_data(recipe, data),
        pruning=pruning,
        first_stage=FirstStage(
            name=data.first_stage,
            quality=means(first),
            per_query={query: values[PRIMARY_METRIC] for query, values in first.items()},
        ),
        teacher=results[0],
        artifacts=results[1:],
        steps=[],
        machine=machine(),
        explanation=explanation,
    )


def base_model_name(recipe: Recipe) -> str:
    """How the card names the model: a Hub id, or words that cannot be taken for one."""
    step = recipe.teacher
    if step.base_model:
        return step.base_model
    if step.model.startswith(PACKAGE_SCHEME) or Path(step.model).exists():
        return f"a local model ({Path(step.model).name})"
    return step.model


def license_for(recipe: Recipe) -> str:
    """Licence of the compressed model: what the recipe says, else what the original's card says; empty for none."""
    return recipe.publish.license or license_of(recipe.teacher.model)


def summarize_data(recipe: Recipe, data: RankingData) -> DataSummary:
    """Figures about the data, and how long its test pairs are."""
    test = data.split("test")
    tokenizer = load_tokenizer(recipe.teacher.model)
    pairs = [pair for query, documents in test.candidates.items() for pair in data.pairs(query, documents)]
    encoded = tokenizer([query for query, _ in pairs], [document for _, document in pairs], return_length=True)
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
    )


def machine() -> Machine:
    """The machine that this runs on."""
    import platform

    return Machine(
        cpu=cpu_name(),
        flags=cpu_flags(),
        cores=thread_count(),
        memory_gb=memory_gb(),
        platform=f"{platform.system()} {platform.machine()}",
        versions=versions(),
    )


def _parameters(candidates: list[Candidate], rankers: list[BatchedRanker]) -> dict[str, int]:
    """Number of parameters of the model in each folder; models that are loaded are not loaded again."""
    models = {
        candidate.folder: ranker.model
        for candidate, ranker in zip(candidates, rankers, strict=True)
        if isinstance(ranker, TorchRanker)
    }
    return {
        folder: sum(parameter.numel() for parameter in (models.get(folder) or load_model(folder)).parameters())
        for folder in {candidate.folder for candidate in candidates}
    }


def _speedup(measurement: Measurement, teacher: Measurement) -> float:
    return 1.0 if measurement is teacher else measurement.speedup_over(teacher)


def _speedup_interval(measurement: Measurement, teacher: Measurement, confidence: float) -> Interval | None:
    return None if measurement is teacher else measurement.speedup_interval(teacher, confidence)


def _single_thread(
    candidates: list[Candidate],
    lists: list[list[list[Pair]]],
    step: EvaluateStep,
    max_length: int | None,
    threads: int,
) -> dict[str, SingleThread]:
    """Speed on one thread, by the candidate's name; nothing where all was measured on one thread anyway."""
    if threads == 1 or not step.single_thread_queries:
        return {}
    rankers = [candidate.ranker(max_length, RankerOptions(1, step.batch_tokens)) for candidate in candidates]
    measured = measure_single_thread(rankers, [own[: step.single_thread_queries] for own in lists], step.confidence)
    return {candidate.name: found for candidate, found in zip(candidates, measured, strict=True)}


def _cold_start(candidate: Candidate, ranker: BatchedRanker, pairs: list[Pair]) -> ColdStart | None:
    return measure_cold_start(ranker, candidate.folder, candidate.runtime, candidate.file, pairs)
