"""The section on data sets that the run neither trained on nor chose by, and the warning about a loss there."""

from __future__ import annotations

from hfcompress.card.wording import difference, metric
from hfcompress.report.report import Artifact, RunReport
from hfcompress.report.zero_shot import VocabularyEffect, VocabularyLoss, ZeroShot
from hfcompress.utils import text as md


def section(report: RunReport) -> str:
    """Quality on the zero-shot sets; empty if the run has none."""
    found = report.zero_shot
    if found is None:
        return ""
    parts = [
        "## Zero-shot",
        _table(report, found),
        f"Test queries of data that this run neither trained on nor chose by: {metric(report)} of the teacher and of "
        f"{md.code(found.artifact)}, over the same candidates. {_pooling(found)}Kendall tau-b: agreement of the two "
        "rankings, whatever the judgements say.",
    ]
    if words := warning(report):
        parts.append(f"**Warning:** {words}")
    if found.vocabulary:
        parts += _vocabulary(report, found.vocabulary)
    return "\n\n".join(parts)


def warning(report: RunReport) -> str:
    """A warning if the loss on zero-shot sets exceeds that in domain by more than the margin; otherwise empty."""
    found = report.zero_shot
    if found is None:
        return ""
    (subject,) = (each for each in report.artifacts if each.name == found.artifact)
    inside = _mean(subject)
    losses = {each.name: each.delta for each in found.sets}
    if found.pooled:
        losses["all of them"] = found.pooled
    worse = [f"{md.signed(each.mean)} on {name}" for name, each in losses.items() if inside - each.mean > each.margin]
    if not worse:
        return ""
    remedy = ": texts of other kinds in the recovery (recover.also) or more lists help" if report.pruning else ""
    return f"outside its domain this model ranks worse, {', '.join(worse)} (in domain {md.signed(inside)}){remedy}."


def _table(report: RunReport, found: ZeroShot) -> str:
    with_student = any(each.student is not None for each in found.sets)
    confidence = md.percent(found.sets[0].delta.confidence)
    head = ["Set", "Queries", "First stage", "Teacher", *["Student in fp32"] * with_student, "Artifact"]
    head += [f"Difference ({confidence} interval)", "Verdict", "Kendall tau-b"]
    rows = []
    for each in found.sets:
        means = (each.first_stage, each.teacher, *[each.student or 0.0] * with_student, each.artifact)
        cells = [each.name, f"{each.delta.queries or 0:,}", *map(md.fixed, means)]
        rows.append([*cells, difference(each.delta), each.delta.decision, md.fixed(each.agreement["kendall_tau"])])
    if pooled := found.pooled:
        empty = [""] * (3 + with_student)
        rows.append(["pooled", f"{pooled.queries or 0:,}", *empty, difference(pooled), pooled.decision, ""])
    return md.table(head, rows, right_from=1)


def _pooling(found: ZeroShot) -> str:
    if found.pooled is None:
        return ""
    return (
        "Pooled: over the queries of all sets together. Verdicts of single sets are corrected for their number (Holm). "
    )


def _vocabulary(report: RunReport, effect: VocabularyEffect) -> list[str]:
    """The difference to the teacher with the smaller and with the whole vocabulary."""
    rows = [_row(f"{report.data.name} (in domain)", effect.in_domain)]
    rows += [_row(name, loss) for name, loss in effect.sets.items()]
    if len(effect.sets) > 1:
        rows.append(_row("pooled", _pooled(list(effect.sets.values()))))
    head = ["Set", "Pairs tokenized differently", "Difference, smaller vocabulary", "Difference, whole vocabulary"]
    note = (
        "What the smaller vocabulary costs: differences to the teacher of the student in fp32 PyTorch, and of the same "
        "student with the teacher's embeddings for the tokens that were removed."
    )
    if report.pruning and report.pruning.vocabulary and report.pruning.vocabulary.min_count > 1:
        note += (
            " Rare tokens of the training texts are among these; with the whole vocabulary, their embeddings would "
            "have been trained, too."
        )
    return ["### With the whole vocabulary", md.table(head, rows, right_from=1), note]


def _row(name: str, loss: VocabularyLoss) -> list[str]:
    return [name, md.percent(loss.changed_share, 1), md.signed(loss.cut), md.signed(loss.whole)]


def _pooled(losses: list[VocabularyLoss]) -> VocabularyLoss:
    """Means over the queries of all sets."""
    queries = sum(each.queries for each in losses)

    def mean(name: str) -> float:
        return float(sum(each.queries * getattr(each, name) for each in losses) / queries)

    return VocabularyLoss(queries=queries, changed_share=mean("changed_share"), cut=mean("cut"), whole=mean("whole"))


def _mean(artifact: Artifact) -> float:
    assert artifact.delta is not None
    return artifact.delta.mean
