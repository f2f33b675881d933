"""The first lines of the card: the verdict, and what the model is."""

from __future__ import annotations

from hfcompress import markdown as md
from hfcompress import verdicts
from hfcompress.card.wording import interval, metric
from hfcompress.evaluation.report import Artifact, RunReport
from hfcompress.front_matter import hub_id


def verdict(report: RunReport, subject: Artifact | None) -> str:
    """What was shown, and what it is worth in time and size."""
    if subject is None or subject.delta is None:
        return "**No verdict:** this run compared no artefact with the teacher."
    delta, name = subject.delta, md.code(subject.name)
    found = (
        f"difference {md.signed(delta.mean)}, {md.percent(delta.confidence)} interval {interval(delta)}, "
        f"{len(subject.per_query):,} test queries of {report.data.name}"
    )
    if delta.decision == "non-inferior":
        shown = (
            f"**{name} is non-inferior to its teacher:** a loss of {delta.margin:g} {metric(report)} or more is ruled "
            f"out ({found})."
        )
        return f"{shown}\n\n{_gain(report, subject)}"
    compared = sum(artifact.delta is not None for artifact in report.artifacts)
    reason = verdicts.reason(delta, compared)
    shown = (
        f"**No artefact is shown to be non-inferior to its teacher** at a margin of {delta.margin:g} "
        f"{metric(report)}. The closest is {name}, with the verdict *{delta.decision}*: {reason} ({found})."
    )
    return f"{shown}\n\n{_gain(report, subject)}"


def _gain(report: RunReport, subject: Artifact) -> str:
    rates = [md.number(artifact.latency.docs_per_second) for artifact in (subject, report.teacher)]
    sizes = [md.megabytes(artifact.size_bytes) for artifact in (subject, report.teacher)]
    return (
        f"It scores {rates[0]} documents a second where the teacher in fp32 PyTorch scores {rates[1]} "
        f"(**{md.times(subject.speedup)}**, {md.count(subject.latency.threads, 'thread')}, tokenization counted), and "
        f"takes {sizes[0]} MB on disk instead of {sizes[1]} MB."
    )


def origin(report: RunReport) -> str:
    """What kind of model this is, and what it was made from."""
    base = hub_id(report.base_model)
    source = f"[{base}](https://huggingface.co/{base})" if base else md.code(report.base_model)
    licence = f" Licence: {report.license}." if report.license.strip() else ""
    return (
        f"A reranker (cross-encoder): it reads a query and a document together and gives one score. Made by hfcompress "
        f"from {source} ({report.model_type}, at most {report.max_length} tokens a pair).{licence}"
    )
