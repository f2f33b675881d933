"""Tables of results in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from hfcompress.cli.terminal import out

if TYPE_CHECKING:
    from hfcompress.evaluation.report import Artifact, RunReport


def print_report(report: RunReport) -> None:
    """Print what a run measured."""
    table = result_table(f"{report.name}: {len(report.teacher.per_query)} test queries of {report.data.name}")
    table.add_row(report.first_stage.name, *quality_cells(report.first_stage.quality), *[""] * 5)
    for artifact in (report.teacher, *report.artifacts):
        add_row(table, artifact)
    out.print(table)


def result_table(title: str) -> Table:
    """An empty table of results."""
    table = Table(title=title, title_justify="left")
    for name in ("", "nDCG@10", "MRR@10", "difference", "verdict", "docs/s", "speed-up", "MB"):
        table.add_column(name, justify="left" if name in ("", "verdict") else "right", no_wrap=True)
    return table


def add_row(table: Table, artifact: Artifact) -> None:
    """Add what was measured of one artefact."""
    delta = artifact.delta
    table.add_row(
        artifact.name,
        *quality_cells(artifact.quality),
        f"{delta.mean:+.4f} [{delta.ci_low:+.4f}, {delta.ci_high:+.4f}]" if delta else "",
        delta.verdict if delta else "",
        f"{artifact.latency.docs_per_second:.0f}",
        f"{artifact.speedup:.2f}x",
        f"{artifact.size_bytes / 1e6:.1f}",
    )


def quality_cells(quality: dict[str, float]) -> list[str]:
    """nDCG@10 and MRR@10 as text."""
    return [f"{quality[name]:.4f}" for name in ("ndcg@10", "mrr@10")]
