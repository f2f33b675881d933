"""Compare an artifact with its teacher on data sets that the run neither trained on nor chose by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.metrics import (
    PRIMARY_METRIC,
    Run,
    agreement,
    first_stage_run,
    means,
    per_query,
    run_from_scores,
)
from hfcompress.evaluation.significance import compare
from hfcompress.recipe import EvaluateStep
from hfcompress.report.delta import Delta
from hfcompress.report.zero_shot import ZeroShotSet

Quality = dict[str, float]
"""The primary metric of each query."""
Scores = dict[str, list[float]]
"""Raw scores of the candidates of each query."""


def runs_of(score: Callable[[RankingData], Scores], sets: Iterable[RankingData]) -> list[Run]:
    """Rank the test splits of all sets.

    Args:
        score: Scores the candidates of a set's test queries.
        sets: The data sets.
    """
    return [run_from_scores(data.split("test").candidates, score(data)) for data in sets]


def quality_of(data: RankingData, run: Run) -> Quality:
    """The primary metric of each judged test query."""
    found = per_query(data.split("test").qrels, run, data.relevant_from, [PRIMARY_METRIC])
    return {query: values[PRIMARY_METRIC] for query, values in found.items()}


def compare_sets(
    sets: Sequence[RankingData],
    teacher: Sequence[Run],
    artifact: Sequence[Run],
    student: Sequence[Run] | None,
    step: EvaluateStep,
    seed: int,
) -> tuple[list[ZeroShotSet], Delta | None]:
    """Compare an artifact with its teacher on each set, and on the queries of all sets together.

    Args:
        sets: The data sets.
        teacher: Run of the teacher on each set.
        artifact: Run of the artifact on each set.
        student: Run of the student in fp32 on each set; None if there is none beside the artifact.
        step: Margin and confidence.
        seed: Seed of the bootstrap.

    Returns:
        The results of each set, and the comparison over all queries, None with a single set.
    """
    before, after = ([quality_of(*each) for each in zip(sets, runs, strict=True)] for runs in (teacher, artifact))
    pooled, deltas = compare_pooled([data.name for data in sets], before, after, step, seed)
    results = []
    for index, data in enumerate(sets):
        first = quality_of(data, first_stage_run(data.split("test").candidates))
        results.append(
            ZeroShotSet(
                name=data.name,
                fingerprint=data.fingerprint(),
                license=data.license,
                notes=list(data.notes),
                first_stage=mean(first),
                teacher=mean(before[index]),
                artifact=mean(after[index]),
                student=mean(quality_of(data, student[index])) if student else None,
                delta=deltas[index],
                agreement=agreement(*(_ranked(runs[index]) for runs in (teacher, artifact))),
                per_query=after[index],
                teacher_per_query=before[index],
            )
        )
    return results, pooled if len(sets) > 1 else None


def compare_pooled(
    names: Sequence[str], teacher: Sequence[Quality], artifact: Sequence[Quality], step: EvaluateStep, seed: int
) -> tuple[Delta, list[Delta]]:
    """Compare the primary metric over the queries of all sets together, and in each set.

    Returns:
        The comparison over all queries, whose ids begin with the name of their set, and that of each set; p-values of
        several sets are corrected for their number.
    """
    owner = {f"{name}/{query}": name for name, quality in zip(names, teacher, strict=True) for query in quality}

    def joined(qualities: Sequence[Quality]) -> Quality:
        pairs = zip(names, qualities, strict=True)
        return {f"{name}/{query}": value for name, quality in pairs for query, value in quality.items()}

    pooled = compare(
        joined(teacher), joined(artifact), step.margin, step.confidence, seed=seed, set_of=owner.__getitem__
    )
    deltas = []
    for name in names:
        delta = pooled.by_set.get(name, pooled)
        worst = (delta.worst_query or "").removeprefix(f"{name}/")
        deltas.append(delta.model_copy(update={"worst_query": worst}))
    return pooled.model_copy(update={"by_set": {}}), deltas


def mean(quality: Quality) -> float:
    """Mean over the queries."""
    return means({query: {PRIMARY_METRIC: value} for query, value in quality.items()})[PRIMARY_METRIC]


def _ranked(run: Run) -> Run:
    """A run without queries that have no candidates."""
    return {query: scores for query, scores in run.items() if scores}
