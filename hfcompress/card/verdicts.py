"""Sentences and tables on the verdict: decision rule, p-values, power, and results per data set."""

from __future__ import annotations

from hfcompress.card.wording import difference
from hfcompress.report.report import Artifact, Delta, RunReport
from hfcompress.utils import text as md

_DIGITS = 4


def level(delta: Delta) -> float:
    """Level of the one-sided test: probability of a false `non-inferior` at a loss of exactly the margin."""
    return round((1 - delta.confidence) / 2, 6)


def reason(report: RunReport, artifact: Artifact) -> str:
    """Why an artifact is not non-inferior."""
    delta = _delta(artifact)
    if delta.decision == "inferior":
        return f"it loses more than {delta.margin:g}"
    if delta.verdict == "non-inferior" and delta.p_corrected is not None:
        if before := _failed_before(report, artifact):
            return f"it was to be tested only if {md.code(before)}, tested before it, is non-inferior"
        corrected = "" if report.sequence else f" after the correction for {md.count(len(_tested(report)), 'artifact')}"
        return (
            f"its interval alone rules out a loss of {delta.margin:g}, but the test does not, with a p-value of "
            f"{md.fixed(delta.p_corrected, _DIGITS)}{corrected}, where {level(delta):g} is allowed"
        )
    return (
        f"these queries cannot tell whether it loses more than {delta.margin:g}; with no true difference at all "
        f"they would have shown non-inferiority with a probability of {md.percent(delta.power)}"
    )


def weak_teacher(report: RunReport) -> str:
    """A warning if the teacher of a run is no better than its first stage; otherwise empty."""
    stage = report.first_stage
    return weak_ranking(stage.name, stage.quality["ndcg@10"], report.teacher.quality["ndcg@10"])


def weak_ranking(name: str, first: float, teacher: float) -> str:
    """A warning if the teacher is no better than the first stage; otherwise empty.

    Args:
        name: Name of the first stage.
        first: Mean nDCG@10 of the first stage.
        teacher: Mean nDCG@10 of the teacher on the same queries.
    """
    if teacher > first:
        return ""
    return (
        f"The teacher ranks these queries no better than {name} alone (nDCG@10 {md.fixed(teacher, _DIGITS)} against "
        f"{md.fixed(first, _DIGITS)}): what is compressed here is not worth its time before the teacher itself ranks "
        "better, for instance fine-tuned on such data."
    )


def rule(report: RunReport) -> str:
    """The decision rule, for the section on methods."""
    tested = _tested(report)
    if not tested:
        return (
            "**Verdict:** from the paired bootstrap interval (BCa) of the difference and a margin set before the run. "
            "*Non-inferior*: the interval lies above minus the margin; *inferior*: below it; *inconclusive*: it holds "
            "it."
        )
    corrected = "" if report.sequence else f", corrected by Holm for {md.count(len(tested), 'artifact')},"
    order = ""
    if report.sequence and len(tested) > 1:
        order = (
            " Artifacts are tested one after the other, in an order set before the test queries were seen "
            f"({', '.join(md.code(name) for name in report.sequence)}): the first is the one to deploy, and each other "
            "one can be *non-inferior* only if all before it are, so that none pays for the number of artifacts."
        )
    return (
        "**Verdict:** from the paired bootstrap interval (BCa) of the difference, a paired randomisation test and a "
        "margin set before the run. *Non-inferior*: the interval lies above minus the margin, and the one-sided "
        f"p-value of the test{corrected} is at most {level(_delta(tested[0])):g}; *inferior*: the interval lies below "
        f"minus the margin; *inconclusive*: all else.{order}"
    )


def several(report: RunReport) -> str:
    """The effect of several artifacts on the verdict, for the section on limits."""
    if report.sequence:
        return "The verdict holds for all artifacts of this run together, not for earlier runs on these queries."
    if _tested(report):
        return (
            "The verdict is corrected for the number of artifacts in this run, not for earlier runs on these queries."
        )
    return (
        "Each artifact is tested by itself: the more artifacts a run has, the likelier it is that one of them passes "
        "by chance."
    )


def section(report: RunReport) -> str:
    """The section on the verdict; empty for reports without p-values."""
    tested = _tested(report)
    if not tested:
        return ""
    rows = []
    for artifact in tested:
        delta = _delta(artifact)
        rows.append(
            [
                md.code(artifact.name),
                delta.verdict,
                *(_p(value) for value in (delta.p_non_inferior, delta.p_corrected)),
                delta.decision,
                _p(delta.p_difference),
                md.percent(delta.power),
                f"{delta.queries_needed or 0:,}",
                _worst(delta),
            ]
        )
    adjusted = "p in sequence" if report.sequence else "p corrected"
    head = ["", "By the interval alone", "p", adjusted, "**Verdict**", "p of no difference", "Power",
            "Queries for 80%", "Lowest query"]  # fmt: skip
    decisive = "p-value in sequence" if report.sequence else "corrected p-value"
    meaning = (
        "in sequence: the largest of this artifact and those tested before it, which stand above it."
        if report.sequence
        else f"corrected: by Holm, for {md.count(len(tested), 'artifact')}."
    )
    parts = [
        "## Verdict",
        md.table(head, rows),
        f"What decides is the column **Verdict**: the interval and the {decisive} must both "
        f"rule out a loss of {_delta(tested[0]).margin:g}. p: one-sided paired randomisation test of such a loss; "
        f"{meaning} p of no difference: two-sided, of no difference at all, whatever the margin. "
        "Power: probability of *non-inferior* by the interval alone if the true difference were zero, and the "
        "queries like these for which it is 80%. Lowest query: the largest loss of a single query.",
    ]
    if any(_delta(artifact).by_set for artifact in tested):
        parts += _sets(report, tested)
    return "\n\n".join(parts)


def _sets(report: RunReport, tested: list[Artifact]) -> list[str]:
    rows = [
        [
            md.code(artifact.name),
            name,
            f"{part.queries or 0:,}",
            difference(part),
            part.verdict,
            _p(part.p_corrected),
            part.decision,
            md.percent(part.power),
            _worst(part),
        ]
        for artifact in tested
        for name, part in _delta(artifact).by_set.items()
    ]
    head = ["", "Set", "Queries", "Difference", "By the interval alone"]
    head += ["p corrected", "Verdict", "Power", "Lowest query"]
    family = "the sets of an artifact" if report.sequence else "all artifacts and all sets"
    return [f"Each data set by itself; p-values are corrected for {family}:", md.table(head, rows)]


def _tested(report: RunReport) -> list[Artifact]:
    """Artifacts with p-values, in the order in which they were tested."""
    tested = [artifact for artifact in report.artifacts if artifact.delta and artifact.delta.p_corrected is not None]
    return sorted(tested, key=lambda artifact: report.sequence.index(artifact.name)) if report.sequence else tested


def _failed_before(report: RunReport, artifact: Artifact) -> str:
    """Name of the artifact at which the sequence of tests ended before this one; empty if it had not."""
    for other in _tested(report) if report.sequence else ():
        if other.name == artifact.name:
            break
        if _delta(other).decision != "non-inferior":
            return other.name
    return ""


def _delta(artifact: Artifact) -> Delta:
    assert artifact.delta is not None
    return artifact.delta


def _p(value: float | None) -> str:
    return "" if value is None else md.fixed(value, _DIGITS)


def _worst(delta: Delta) -> str:
    return "" if delta.worst is None else f"{md.signed(delta.worst)} ({md.code(delta.worst_query or '')})"
