"""Tables of all artifacts: quality, speed, agreement with the teacher, score stability."""

from __future__ import annotations

from hfcompress.card import devices, figures, verdicts
from hfcompress.card.wording import difference, metric, optional, speedup
from hfcompress.evaluation.metrics import REPORTED
from hfcompress.report.report import Artifact, RunReport
from hfcompress.utils import text as md
from hfcompress.utils.text import metric_label

QUALITY = ("ndcg@10", "mrr@10")


def quality(report: RunReport) -> str:
    """The table of quality, verdict, speed-up and size, and the figure of quality against speed."""
    confidences = {artifact.delta.confidence for artifact in report.artifacts if artifact.delta}
    interval = " and ".join(md.percent(level) for level in sorted(confidences))
    head = ["", "nDCG@10", "MRR@10", f"Difference ({interval} interval)" if interval else "Difference", "Verdict"]
    stage, measured = report.first_stage, (report.teacher, *report.artifacts)
    deflated = any(artifact.deflated_bytes for artifact in measured)
    head += ["docs/s", "Speed-up", "MB", *["MB deflated"] * deflated]
    empty = [""] * (5 + deflated)
    rows = [[f"{stage.name} (first stage)", *(optional(stage.quality, name) for name in QUALITY), *empty]]
    for artifact in measured:
        delta = artifact.delta
        rows.append(
            [
                _name(report, artifact),
                *(optional(artifact.quality, name) for name in QUALITY),
                difference(delta) if delta else "",
                delta.decision if delta else "",
                md.number(artifact.latency.docs_per_second),
                speedup(artifact.speedup, artifact.speedup_interval),
                md.megabytes(artifact.size_bytes),
                *[md.megabytes(artifact.deflated_bytes or 0)] * deflated,
            ]
        )
    same = ", and of the same under deflate (zip, gzip), level 6" if deflated else ""
    warning = verdicts.weak_teacher(report)
    weak = f"**{warning}**\n\n" if warning else ""
    return (
        f"## Results\n\n{md.table(head, rows, right_from=1)}\n\n"
        f"Difference: {metric(report)} of the artifact less that of the teacher, mean over the test queries. "
        f"Speed-up: against the teacher in fp32 PyTorch{' on the same device' if devices.several(report) else ''}"
        f"{', with the interval of its median' if any(each.speedup_interval for each in report.artifacts) else ''}. "
        f"MB: 10^6 bytes of the files that a deployment needs, tokenizer included{same}."
        f"{_packed(report)}\n\n{devices.table(report)}{weak}"
        f"![nDCG@10 of the teacher and of every artifact against documents scored per second]({figures.PARETO_FILE})"
    )


def _packed(report: RunReport) -> str:
    """What low-bit weight-only quantization saves, and what not."""
    names = [md.code(artifact.name) for artifact in report.artifacts if artifact.precision.endswith("-weights")]
    if not names:
        return ""
    return (
        f" {', '.join(names)}: low-bit weight-only quantization, dequantized to fp32 when loaded. That saves disk "
        "and download; time and memory are those of the model in fp32 PyTorch."
    )


def more_quality(report: RunReport) -> str:
    """The table of additional metrics in the recipe."""
    names = [name for name in report.teacher.quality if name not in REPORTED]
    if not names:
        return ""
    rows = [
        [f"{report.first_stage.name} (first stage)", *(optional(report.first_stage.quality, name) for name in names)]
    ]
    for artifact in (report.teacher, *report.artifacts):
        rows.append([_name(report, artifact), *(optional(artifact.quality, name) for name in names)])
    return f"### Other metrics\n\n{md.table(['', *map(metric_label, names)], rows, right_from=1)}"


def speed(report: RunReport) -> str:
    """The table of latency, single-thread speed, cold start and memory, as far as they were measured."""
    artifacts = (report.teacher, *report.artifacts)
    single, starts = ([getattr(each, name) for each in artifacts] for name in ("single_thread", "cold_start"))
    columns: dict[str, list[str]] = {
        "": [_name(report, artifact) for artifact in artifacts],
        "p50 ms": [md.number(artifact.latency.p50_ms) for artifact in artifacts],
        "p95 ms": [md.number(artifact.latency.p95_ms) for artifact in artifacts],
        "p99 ms": [md.number(value) if (value := each.latency.p99_ms) else "" for each in artifacts],
        "p50 ms on 1 thread": [md.number(one.latency.p50_ms) if one else "" for one in single],
        "Speed-up on 1 thread": [speedup(one.speedup, one.speedup_interval) if one else "" for one in single],
        "Cold start s": [f"{start.seconds:.1f}" if start else "" for start in starts],
        "Peak memory MB": [
            f"{start.peak_memory_bytes / 1e6:,.0f}" if start and start.peak_memory_bytes else "" for start in starts
        ],
    }  # fmt: skip
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    rows = [list(row) for row in zip(*kept.values(), strict=True)]
    latency = report.teacher.latency
    timed = f" ({latency.queries} were timed)" if latency.queries else ""
    notes = [
        f"p50, p95{', p99' if 'p99 ms' in kept else ''}: time of one query with {round(latency.candidates, 1):g} "
        f"documents{timed}, with {md.count(latency.threads, 'thread')}."
    ]
    if "Cold start s" in kept:
        notes.append(
            "Cold start: a fresh process imports its libraries, loads the model and scores one query, with the files "
            "in the system's cache; graphs with their runtime and `tokenizers` alone. Peak memory is of that process."
        )
    return f"### Time of a query, start and memory\n\n{md.table(list(kept), rows, right_from=1)}\n\n{' '.join(notes)}"


def agreement(report: RunReport) -> str:
    """The table of agreement between the rankings of artifacts and teacher."""
    rows = [
        [
            md.code(artifact.name),
            *(optional(artifact.agreement, key) for key in ("kendall_tau", "overlap@10")),
            md.percent(artifact.tied_share, 2),
        ]
        for artifact in report.artifacts
    ]
    if not rows:
        return ""
    table = md.table(["", "Kendall tau-b", "Overlap of the top 10", "Tied scores"], rows, right_from=1)
    return (
        f"## Agreement with the teacher\n\n{table}\n\n"
        "How far an artifact orders the same candidates as the teacher does, whatever the judgements say; means over "
        "the test queries. Tied scores: share of neighbours in a ranking with equal scores "
        f"({md.percent(report.teacher.tied_share, 2)} for the teacher)."
    )


def stability(report: RunReport) -> str:
    """The table of batch invariance: how much the score of a pair depends on the other pairs in its batch."""
    measured = [(artifact, artifact.stability) for artifact in report.artifacts if artifact.stability]
    if not measured:
        return ""
    rows = []
    for artifact, found in measured:
        kept, drifts = found.rank_correlation, (found.batched, found.padded)
        cells = [(f"{drift.mean:.2g}", f"{drift.largest:.2g}", md.percent(drift.swapped_share, 1)) for drift in drifts]
        rows.append([md.code(artifact.name), *map(" / ".join, cells), "" if kept is None else md.fixed(kept)])
    halves = any(each.precision in ("fp16", "bf16") for each, _ in measured)
    kind = "a quantized or 16-bit" if halves else "a quantized" if _packed(report) else "an int8"
    table = md.table(["", "In batches", "Under more padding", "Rank correlation with fp32"], rows, right_from=1)
    return (
        f"### Score stability\n\n{table}\n\n"
        f"How far the scores of {measured[0][1].pairs:,} pairs, each scored alone, move in batches sorted by length, "
        "and in batches padded to twice their longest pair: mean and largest difference in standard deviations of the "
        f"scores, and share of neighbours in a ranking that change places. Rank correlation: Spearman's, of {kind} "
        f"artifact with the fp32 model that {'it was made from' if halves else 'was quantized'}."
    )


def _name(report: RunReport, artifact: Artifact) -> str:
    place = f" on {artifact.device}" if devices.several(report) else ""
    return f"teacher, fp32 PyTorch{place}" if artifact is report.teacher else f"{md.code(artifact.name)}{place}"
