"""The first paragraphs of the card: the verdict, and the kind and origin of the model."""

from __future__ import annotations

from hfcompress.card import devices, verdicts
from hfcompress.card.front_matter import hub_id
from hfcompress.card.wording import interval, metric
from hfcompress.evaluation.power import POWER
from hfcompress.report.report import Alternative, Artifact, RunReport
from hfcompress.utils import text as md


def verdict(report: RunReport, subject: Artifact | None) -> str:
    """The verdict on the primary artifact, and its gain in speed and size."""
    if subject is None or subject.delta is None:
        return "**No verdict:** this run compared no artifact with the teacher."
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
    reason = verdicts.reason(report, subject)
    if report.sequence:
        shown = (
            f"**{name} is not shown to be non-inferior to its teacher** at a margin of {delta.margin:g} "
            f"{metric(report)}. The verdict is *{delta.decision}*: {reason} ({found})."
        )
    else:
        shown = (
            f"**No artifact is shown to be non-inferior to its teacher** at a margin of {delta.margin:g} "
            f"{metric(report)}. The closest is {name}, with the verdict *{delta.decision}*: {reason} ({found})."
        )
    parts = [shown, _gain(report, subject), *([would_pass(report.would_pass)] if report.would_pass else [])]
    return "\n\n".join(parts)


def chance(other: Alternative) -> str:
    """Whether an alternative can be expected to pass, or is the most probable one."""
    return "would pass" if other.probability >= POWER else "is the most likely to pass"


def would_pass(other: Alternative) -> str:
    """The model that would pass, or most probably does, in a sentence."""
    queries, delta = other.delta.queries or 0, other.delta
    return (
        f"**{md.times(other.speedup)} {chance(other)}:** {other.name}, measured on {queries:,} dev queries (difference "
        f"{md.signed(delta.mean)}, {md.percent(delta.confidence)} interval {interval(delta)}), would be non-inferior "
        f"with a probability of {md.percent(other.probability)}. It was not tested on test queries, so this is no "
        f"verdict."
    )


def _gain(report: RunReport, subject: Artifact) -> str:
    base, place = devices.baseline(report, subject)
    rates = [md.number(rate) for rate in (subject.latency.docs_per_second, base)]
    how = place.removeprefix(" ") or md.count(subject.latency.threads, "thread")
    sizes = [md.megabytes(artifact.size_bytes) for artifact in (subject, report.teacher)]
    return (
        f"It scores {rates[0]} documents a second where the teacher in fp32 PyTorch scores {rates[1]} "
        f"(**{md.times(subject.speedup)}**, {how}, tokenization counted), and "
        f"takes {sizes[0]} MB on disk instead of {sizes[1]} MB."
    )


def origin(report: RunReport) -> str:
    """The kind of model, the model that it was made from, and its licence."""
    base = hub_id(report.base_model)
    source = f"[{base}](https://huggingface.co/{base})" if base else md.code(report.base_model)
    licence = f" Licence: {report.license}." if report.license.strip() else ""
    return (
        f"A reranker (cross-encoder): it reads a query and a document together and gives one score. Made by hfcompress "
        f"from {source} ({report.model_type}, at most {report.max_length} tokens a pair).{licence}"
    )
