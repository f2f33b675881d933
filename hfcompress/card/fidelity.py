"""Score fidelity in the card: the section, its figure's caption, and what the limits say about thresholds."""

from __future__ import annotations

from collections.abc import Collection

from hfcompress.models.layout import RELIABILITY_FILE
from hfcompress.report.fidelity import ArtifactFidelity, Estimate, ScoreFidelity, Threshold, ThresholdDecisions
from hfcompress.report.report import RunReport
from hfcompress.utils import text as md

SIGNIFICANT = 3  # digits of scores and drifts


def section(report: RunReport) -> str:
    """The section on score fidelity; empty in older reports."""
    found = report.score_fidelity
    if found is None:
        return ""
    parts = [
        "## Score fidelity",
        _drift(found),
        *_thresholds(found),
        *_corresponding(found),
        f"![Share of relevant pairs over the score, of the teacher and of every artifact]({RELIABILITY_FILE})",
    ]
    return "\n\n".join(parts)


def limit(report: RunReport) -> str:
    """What holds for a threshold that was tuned on the teacher."""
    found = report.score_fidelity
    if found is None or not any(each.map for each in found.artifacts):
        return (
            "An artifact's scores are not the teacher's: a threshold that was tuned on the teacher must be set again."
        )
    if any(each.map and not each.map.folded for each in found.artifacts):
        return (
            "An artifact's scores are not on the teacher's scale where they were not calibrated. Score fidelity has "
            "the thresholds that correspond to the teacher's."
        )
    return (
        "Scores were brought to the teacher's scale, so a threshold that was tuned on the teacher can stay. Single "
        "scores still differ: Score fidelity has the share of pairs that change sides."
    )


def lines(found: ScoreFidelity, names: Collection[str] = ()) -> list[str]:
    """Score fidelity as lines of text, for the terminal.

    Args:
        found: Score fidelity.
        names: Names of the artifacts; by default all.
    """
    written = []
    for artifact in (each for each in found.artifacts if not names or each.name in names):
        written.append(
            f"{artifact.name}: scores differ from the teacher's by {_number(artifact.logits.rms)} logits (root mean "
            f"square; 95% by at most {_number(artifact.logits.p95)}){_scale(artifact)}"
        )
        for threshold, own in zip(found.thresholds, artifact.thresholds, strict=True):
            there = "" if own.corresponding is None else f", which corresponds to {_number(own.corresponding)} here"
            written.append(
                f"  threshold {_title(threshold)}{there}: {_share(own.changed)} of the pairs change sides; precision "
                f"{_share(own.artifact.precision)} (teacher {_share(threshold.teacher.precision, False)}), recall "
                f"{_share(own.artifact.recall)} (teacher {_share(threshold.teacher.recall, False)})"
            )
    return written


def _drift(found: ScoreFidelity) -> str:
    head = ["", "Logits: RMS", "95th percentile", "Shift of queries"]
    identity = found.activation == "Identity"
    head += [] if identity else [f"{found.activation}: RMS", "95th percentile"]
    head += ["Scale", "Shift", "Calibrated"]
    rows = []
    for each in found.artifacts:
        drifts = [each.logits.rms, each.logits.p95, each.query_shift]
        drifts += [] if identity else [each.activated.rms, each.activated.p95]
        line = [_number(each.map.scale), f"{each.map.shift:+.{SIGNIFICANT}g}"] if each.map else ["", ""]
        rows.append([md.code(each.name), *map(_number, drifts), *line, _calibrated(each)])
    fitted = next((each.map for each in found.artifacts if each.map), None)
    where = f", fitted on {md.count(fitted.pairs, 'pair')} of {fitted.split}" if fitted else ""
    return (
        f"{md.table(head, rows, right_from=1)}\n\n"
        f"Differences to the teacher's scores for the same {found.pairs:,} test pairs. Ranking metrics do not see "
        "them; a threshold does. Shift of queries: standard deviation of the mean difference of a query, which ranking "
        "losses leave free and no map of the scores removes; the term `mse` in `recover.loss` ties it down. Scale and "
        f"shift: of the logit, by Huber's regression of the teacher's logits on the artifact's{where}. *Calibrated*: "
        "folded into weights and graphs, so that every runtime returns calibrated scores; the ranking is that of "
        "before."
    )


def _thresholds(found: ScoreFidelity) -> list[str]:
    """The table of thresholds."""
    if not found.thresholds:
        return []
    head = ["Threshold", "", "Change sides", "Accepted", "Precision", "Recall"]
    rows = []
    for number, threshold in enumerate(found.thresholds):
        rows.append([_title(threshold), "teacher", "", *_decisions(threshold.teacher)])
        for artifact in found.artifacts:
            own = artifact.thresholds[number]
            rows.append(["", md.code(artifact.name), _share(own.changed), *_decisions(own.artifact)])
    best = "The best threshold is the one with the teacher's highest F1 on the labels of dev pairs. "
    best = best if any(each.best for each in found.thresholds) else ""
    return [
        md.table(head, rows, right_from=2),
        f"{best}Change sides: share of the pairs that the teacher's score accepts and the artifact's does not, or the "
        "other way round. Accepted: share of the pairs with that score or more. Precision and recall: over the pairs "
        f"of the {found.judged_queries:,} queries with judgements together; pairs without a judgement are not "
        "relevant, and relevant documents that are no candidates do not count. Intervals "
        f"({md.percent(found.confidence)}): percentile bootstrap over queries.",
    ]


def _corresponding(found: ScoreFidelity) -> list[str]:
    """The thresholds of artifacts that were not calibrated."""
    open_ = [each for each in found.artifacts if each.map and not each.map.folded]
    if not open_ or not found.thresholds:
        return []
    head = ["Threshold on the teacher's score", *(md.code(each.name) for each in open_)]
    rows = [
        [_title(threshold), *(_optional(each.thresholds[number].corresponding) for each in open_)]
        for number, threshold in enumerate(found.thresholds)
    ]
    reasons = "; ".join(dict.fromkeys(each.map.reason for each in open_ if each.map and each.map.reason))
    return [
        f"### Thresholds that correspond to the teacher's\n\nThese artifacts are not calibrated ({reasons}). Cut their "
        "scores where scale and shift above reach the teacher's threshold; for any other logit t of the teacher, at "
        "(t - shift) / scale:",
        md.table(head, rows, right_from=1),
    ]


def _title(threshold: Threshold) -> str:
    """The threshold on the score that `rank` returns, and its logit where that is another number."""
    logit = "" if threshold.logit == threshold.score else f" (logit {_number(threshold.logit)})"
    return f"{'best, ' if threshold.best else ''}{_number(threshold.score)}{logit}"


def _scale(artifact: ArtifactFidelity) -> str:
    if artifact.map is None:
        return ""
    if artifact.map.folded:
        return ", calibrated"
    return f", not calibrated: the teacher's scale is {artifact.map.scale:.4g} * logit {artifact.map.shift:+.4g}"


def _calibrated(artifact: ArtifactFidelity) -> str:
    return "yes" if artifact.map and artifact.map.folded else "no"


def _decisions(found: ThresholdDecisions) -> list[str]:
    return [md.percent(found.accepted, 1), _share(found.precision), _share(found.recall)]


def _share(found: Estimate | None, interval: bool = True) -> str:
    """A share with its interval: `1.9% [1.5, 2.4]`; `none` where it is not defined."""
    if found is None:
        return "none"
    return f"{100 * found.value:.1f}%" + (f" [{100 * found.low:.1f}, {100 * found.high:.1f}]" if interval else "")


def _optional(value: float | None) -> str:
    return "" if value is None else _number(value)


def _number(value: float) -> str:
    return f"{value:.{SIGNIFICANT}g}"
