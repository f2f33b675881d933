"""Results in the terminal: a table, and the verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hfcompress.cli.terminal import out
from hfcompress.metric_names import label

if TYPE_CHECKING:
    from hfcompress.evaluation.report import Artifact, Delta, FirstStage, RunReport
    from hfcompress.evaluation.standalone import Evaluation, RunFigures

SHOWN = ("ndcg@10", "mrr@10")
WIDE = 120  # columns that all figures take
_WIDE_ONLY = ("mrr@10", "docs/s")  # left out of a narrow terminal, unless asked for


def print_report(report: RunReport, console: Console = out) -> None:
    """Print what a run measured: a table, then the verdict in words."""
    from hfcompress.verdicts import weak_teacher

    title = f"{report.name}: {len(report.teacher.per_query)} test queries of {report.data.name}"
    table = result_table(title, console=console)
    add_first_stage(table, report.first_stage)
    for artifact in (report.teacher, *report.artifacts):
        add_row(table, artifact)
    console.print(table)
    console.print(verdict(report), markup=False)
    if warning := weak_teacher(report):
        console.print(warning, markup=False)


def print_evaluation(result: Evaluation, metrics: Sequence[str] = (), console: Console = out) -> None:
    """Print what was measured of models and run files, and what the verdict says.

    Args:
        result: What was measured.
        metrics: Metrics to show beside the usual ones.
        console: Where to print.
    """
    title = f"{result.data} {result.split}, {len(result.artifacts[0].per_query)} queries"
    if result.queries_without_relevant:
        title += f" ({result.queries_without_relevant} more have no relevant document)"
    table = result_table(title, metrics, console)
    add_first_stage(table, result.first_stage)
    for artifact in result.artifacts:
        add_row(table, artifact)
    console.print(table)
    for artifact in result.artifacts:
        if artifact.delta:
            _print_verdict(artifact.name, result.artifacts[0].name, artifact.delta, console)
        if artifact.tied_share:
            console.print(
                f"{escape(artifact.name)}: {artifact.tied_share:.1%} of the neighbours in a ranking have equal scores"
            )
        if missing := getattr(artifact, "missing_queries", 0):
            console.print(f"{escape(artifact.name)}: {missing} judged queries are not in the run and score 0")


def result_table(title: str, metrics: Sequence[str] = (), console: Console = out) -> Table:
    """An empty table of results; on a narrow terminal with fewer columns, and intervals below the differences.

    Args:
        title: Its title.
        metrics: Metrics to show beside the usual ones.
        console: Where it will be printed.
    """
    wide = console.width >= WIDE
    table = Table(title=title, title_justify="left", box=box.HEAVY_HEAD if wide else box.SIMPLE, padding=(0, 1 * wide))
    for name in ("", *dict.fromkeys((*SHOWN, *metrics)), "difference", "verdict", "docs/s", "speed-up", "MB"):
        if wide or name in metrics or name not in _WIDE_ONLY:
            left = name in ("", "verdict")
            justify, kept = ("left" if left else "right"), wide or name != ""
            table.add_column(label(name), justify=justify, no_wrap=kept, overflow="fold")  # type: ignore[arg-type]
    return table


def add_first_stage(table: Table, stage: FirstStage) -> None:
    """Add the order in which the candidates came."""
    _add(table, {"": stage.name, **quality_cells(stage.quality)})


def add_row(table: Table, artifact: Artifact | RunFigures) -> None:
    """Add what was measured of one artefact, or of a run file."""
    from hfcompress.evaluation.report import Artifact

    delta, wide = artifact.delta, table.box is box.HEAVY_HEAD
    name = artifact.name if wide else artifact.name.replace("-int8", "\n  int8", 1)
    cells = {"": escape(name), **quality_cells(artifact.quality)}
    if delta:
        cells["difference"] = f"{delta.mean:+.4f}{' ' if wide else chr(10)}{_interval(delta)}"
        cells["verdict"] = delta.decision
    if isinstance(artifact, Artifact):
        cells["docs/s"] = f"{artifact.latency.docs_per_second:.0f}"
        cells["speed-up"] = f"{artifact.speedup:.2f}x"
        cells["MB"] = f"{artifact.size_bytes / 1e6:.1f}"
    _add(table, cells)


def quality_cells(quality: dict[str, float]) -> dict[str, str]:
    """Metrics as text, by the titles of their columns."""
    return {label(name): f"{value:.4f}" for name, value in quality.items()}


def verdict(report: RunReport) -> str:
    """The verdict of a run in words, about the artefact for which its card speaks."""
    from hfcompress.card import headline
    from hfcompress.verdicts import reason

    subject = headline(report)
    if subject is None or subject.delta is None:
        return "No verdict: no artefact was compared with the teacher."
    delta = subject.delta
    found = f"({delta.confidence:.0%} interval {_interval(delta)}, {len(subject.per_query)} test queries)"
    speed = (
        f"It is {subject.speedup:.1f} times as fast as the teacher in PyTorch, and takes "
        f"{subject.size_bytes / 1e6:.1f} MB instead of {report.teacher.size_bytes / 1e6:.1f} MB."
    )
    if delta.decision == "non-inferior":
        return (
            f"{subject.name} ranks as well as its teacher: a loss of {delta.margin:g} nDCG@10 or more is ruled out "
            f"{found}. {speed}"
        )
    why = reason(delta, sum(artifact.delta is not None for artifact in report.artifacts))
    return (
        f"No artefact is shown to rank as well as its teacher at a margin of {delta.margin:g} nDCG@10. Closest is "
        f"{subject.name}, {delta.decision}: {why} {found}. {speed}"
    )


def _print_verdict(name: str, other: str, delta: Delta, console: Console) -> None:
    """The verdict in words, as far as a report has it."""
    console.print(
        f"{escape(name)} against {escape(other)}: [bold]{delta.decision}[/] at a margin of {delta.margin:g} "
        f"(p {delta.p_corrected:.4f} for a loss of the margin, {delta.p_difference:.4f} for no difference); "
        f"power {delta.power:.0%} with {delta.queries} queries, 80% with {delta.queries_needed:,}; "
        f"lowest: {delta.worst:+.4f} on query {escape(delta.worst_query or '')}"
    )
    for each, part in delta.by_set.items():
        console.print(
            f"  {each}: {part.mean:+.4f} {_interval(part)} {part.decision}, "
            f"{part.queries} queries, lowest {part.worst:+.4f}",
            markup=False,
        )


def _interval(delta: Delta) -> str:
    return f"[{delta.ci_low:+.4f}, {delta.ci_high:+.4f}]"


def _add(table: Table, cells: dict[str, str]) -> None:
    table.add_row(*(cells.get(str(column.header), "") for column in table.columns))
