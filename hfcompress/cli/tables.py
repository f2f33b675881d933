"""Tables of results in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from hfcompress.cli.terminal import out

if TYPE_CHECKING:
    from hfcompress.evaluation.report import Artifact, Delta, FirstStage, RunReport
    from hfcompress.evaluation.standalone import Evaluation, RunFigures

SHOWN = ("ndcg@10", "mrr@10")
_LABELS = {"ndcg": "nDCG", "mrr": "MRR", "map": "MAP", "recall": "Recall", "p": "P", "hit": "Hit", "auc": "AUC"}


def print_report(report: RunReport) -> None:
    """Print what a run measured."""
    table = result_table(f"{report.name}: {len(report.teacher.per_query)} test queries of {report.data.name}")
    add_first_stage(table, report.first_stage)
    for artifact in (report.teacher, *report.artifacts):
        add_row(table, artifact)
    out.print(table)


def print_evaluation(result: Evaluation, metrics: Sequence[str] = ()) -> None:
    """Print what was measured of models and run files, and what the verdict says.

    Args:
        result: What was measured.
        metrics: Metrics to show beside the usual ones.
    """
    shown = tuple(dict.fromkeys((*SHOWN, *metrics)))
    title = f"{result.data} {result.split}, {len(result.artifacts[0].per_query)} queries"
    if result.queries_without_relevant:
        title += f" ({result.queries_without_relevant} more have no relevant document)"
    table = result_table(title, shown)
    add_first_stage(table, result.first_stage, shown)
    for artifact in result.artifacts:
        add_row(table, artifact, shown)
    out.print(table)
    for artifact in result.artifacts:
        if artifact.delta:
            _print_verdict(artifact.name, result.artifacts[0].name, artifact.delta)
        if artifact.tied_share:
            out.print(
                f"{escape(artifact.name)}: {artifact.tied_share:.1%} of the neighbours in a ranking have equal scores"
            )
        if missing := getattr(artifact, "missing_queries", 0):
            out.print(f"{escape(artifact.name)}: {missing} judged queries are not in the run and score 0")


def result_table(title: str, metrics: Sequence[str] = SHOWN) -> Table:
    """An empty table of results."""
    table = Table(title=title, title_justify="left")
    for name in ("", *map(label, metrics), "difference", "verdict", "docs/s", "speed-up", "MB"):
        table.add_column(name, justify="left" if name in ("", "verdict") else "right", no_wrap=True)
    return table


def add_first_stage(table: Table, stage: FirstStage, metrics: Sequence[str] = SHOWN) -> None:
    """Add the order in which the candidates came."""
    table.add_row(stage.name, *quality_cells(stage.quality, metrics), *[""] * 5)


def add_row(table: Table, artifact: Artifact | RunFigures, metrics: Sequence[str] = SHOWN) -> None:
    """Add what was measured of one artefact, or of a run file."""
    from hfcompress.evaluation.report import Artifact

    delta, speed = artifact.delta, [""] * 3
    if isinstance(artifact, Artifact):
        speed = [
            f"{artifact.latency.docs_per_second:.0f}",
            f"{artifact.speedup:.2f}x",
            f"{artifact.size_bytes / 1e6:.1f}",
        ]
    table.add_row(
        escape(artifact.name),
        *quality_cells(artifact.quality, metrics),
        f"{delta.mean:+.4f} [{delta.ci_low:+.4f}, {delta.ci_high:+.4f}]" if delta else "",
        delta.decision if delta else "",
        *speed,
    )


def quality_cells(quality: dict[str, float], metrics: Sequence[str] = SHOWN) -> list[str]:
    """Metrics as text; empty for one that no query defines."""
    return [f"{quality[name]:.4f}" if name in quality else "" for name in metrics]


def label(metric: str) -> str:
    """How a table calls a metric: `nDCG@10`."""
    kind, at, cutoff = metric.partition("@")
    return f"{_LABELS.get(kind, kind.capitalize())}{at}{cutoff}"


def _print_verdict(name: str, other: str, delta: Delta) -> None:
    """The verdict in words, as far as a report has it."""
    out.print(
        f"{escape(name)} against {escape(other)}: [bold]{delta.decision}[/] at a margin of {delta.margin:g} "
        f"(p {delta.p_corrected:.4f} for a loss of the margin, {delta.p_difference:.4f} for no difference); "
        f"power {delta.power:.0%} with {delta.queries} queries, 80% with {delta.queries_needed:,}; "
        f"lowest: {delta.worst:+.4f} on query {escape(delta.worst_query or '')}"
    )
    for each, part in delta.by_set.items():
        out.print(
            f"  {escape(each)}: {part.mean:+.4f} [{part.ci_low:+.4f}, {part.ci_high:+.4f}] {part.decision}, "
            f"{part.queries} queries, lowest {part.worst:+.4f}"
        )
