"""Tables of results in the terminal, and the verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hfcompress.cli.terminal import out
from hfcompress.utils.text import metric_label

if TYPE_CHECKING:
    from hfcompress.evaluation.standalone import Evaluation, RunFileResult
    from hfcompress.report.fidelity import ScoreFidelity
    from hfcompress.report.report import Artifact, Delta, FirstStage, RunReport
    from hfcompress.report.zero_shot import ZeroShot

SHOWN = ("ndcg@10", "mrr@10")
WIDE = 120  # columns that the whole table needs
_WIDE_ONLY = ("mrr@10", "docs/s")  # omitted in a narrow terminal unless requested


def print_report(report: RunReport, console: Console = out, every_score: bool = False) -> None:
    """Print the results of a run as a table, then the verdict in words.

    Args:
        report: The report.
        console: Where to print.
        every_score: Print the score fidelity of every artifact, not only of the one to deploy.
    """
    from hfcompress.card.verdicts import weak_teacher
    from hfcompress.card.zero_shot import warning as outside_domain
    from hfcompress.evaluation.explain import primary_artifact

    title = f"{report.name}: {len(report.teacher.per_query)} test queries of {report.data.name}"
    console.print(_table(title, report.first_stage, (report.teacher, *report.artifacts), (), console))
    console.print(verdict(report), markup=False)
    if warning := weak_teacher(report):
        console.print(warning, markup=False)
    subject = primary_artifact(report.artifacts, report.sequence)
    if report.score_fidelity and subject:
        _print_fidelity(report.score_fidelity, console, () if every_score else (subject.name,))
    if report.zero_shot:
        console.print(_zero_shot(report.zero_shot))
    if warning := outside_domain(report):
        console.print(f"WARNING: {warning}", markup=False)


def print_evaluation(result: Evaluation, metrics: Sequence[str] = (), console: Console = out) -> None:
    """Print the table of models and run files, with these metrics besides the default ones, then the verdicts."""
    title = f"{result.data} {result.split}, {len(result.artifacts[0].per_query)} queries"
    if result.queries_without_relevant:
        title += f" ({result.queries_without_relevant} more have no relevant document)"
    if result.long_documents:
        title += f", long documents {result.long_documents}"
    console.print(_table(title, result.first_stage, result.artifacts, metrics, console))
    for artifact in result.artifacts:
        if artifact.delta:
            _print_verdict(artifact.name, result.artifacts[0].name, artifact.delta, console)
        if artifact.tied_share:
            console.print(
                f"{escape(artifact.name)}: {artifact.tied_share:.1%} of the neighbours in a ranking have equal scores"
            )
        if missing := getattr(artifact, "missing_queries", 0):
            console.print(f"{escape(artifact.name)}: {missing} judged queries are not in the run and score 0")
    if result.score_fidelity:
        _print_fidelity(result.score_fidelity, console)


def _print_fidelity(found: ScoreFidelity, console: Console, names: Sequence[str] = ()) -> None:
    from hfcompress.card.fidelity import lines

    for line in lines(found, names):
        console.print(line, markup=False)


def _table(
    title: str,
    stage: FirstStage,
    artifacts: Sequence[Artifact | RunFileResult],
    metrics: Sequence[str],
    console: Console,
) -> Table:
    """The table of results. A narrow one has fewer columns, and intervals below the differences."""
    wide = console.width >= WIDE
    table = Table(title=title, title_justify="left", box=box.HEAVY_HEAD if wide else box.SIMPLE, padding=(0, 1 * wide))
    for name in ("", *dict.fromkeys((*SHOWN, *metrics)), "difference", "verdict", "docs/s", "speed-up", "MB"):
        if wide or name in metrics or name not in _WIDE_ONLY:
            left = name in ("", "verdict")
            justify, kept = ("left" if left else "right"), wide or name != ""
            table.add_column(metric_label(name), justify=justify, no_wrap=kept, overflow="fold")  # type: ignore[arg-type]
    for cells in ({"": stage.name, **_quality(stage.quality)}, *(_cells(each, wide) for each in artifacts)):
        table.add_row(*(cells.get(str(column.header), "") for column in table.columns))
    return table


def _zero_shot(found: ZeroShot) -> Table:
    """The table of data sets that the run neither trained on nor chose by."""
    table = Table(title=f"Zero-shot: {found.artifact} on other data", title_justify="left", box=box.SIMPLE)
    for name in ("", "queries", "teacher", "artifact", "difference", "verdict", "tau"):
        table.add_column(name, justify="left" if name in ("", "verdict") else "right", overflow="fold")
    for each in found.sets:
        figures = (f"{value:.4f}" for value in (each.teacher, each.artifact))
        table.add_row(escape(each.name), *_compared(each.delta, *figures), f"{each.agreement['kendall_tau']:.2f}")
    if found.pooled:
        table.add_row("pooled", *_compared(found.pooled, "", ""), "")
    return table


def _compared(delta: Delta, teacher: str, artifact: str) -> tuple[str, ...]:
    return str(delta.queries), teacher, artifact, f"{delta.mean:+.4f}\n{_interval(delta)}", delta.decision


def _cells(artifact: Artifact | RunFileResult, wide: bool) -> dict[str, str]:
    """The row of an artifact or a run file, by column title."""
    from hfcompress.report.report import Artifact

    delta = artifact.delta
    name = artifact.name if wide else artifact.name.replace("-int8", "\n  int8", 1)
    cells = {"": escape(name), **_quality(artifact.quality)}
    if delta:
        cells["difference"] = f"{delta.mean:+.4f}{' ' if wide else chr(10)}{_interval(delta)}"
        cells["verdict"] = delta.decision
    if isinstance(artifact, Artifact):
        cells["docs/s"] = f"{artifact.latency.docs_per_second:.0f}"
        cells["speed-up"] = f"{artifact.speedup:.2f}x"
        if artifact.device != "cpu":
            cells[""] += escape(f" on {artifact.device}" if wide else f"\n  on {artifact.device}")
        cells["MB"] = f"{artifact.size_bytes / 1e6:.1f}"
    return cells


def _quality(quality: dict[str, float]) -> dict[str, str]:
    return {metric_label(name): f"{value:.4f}" for name, value in quality.items()}


def verdict(report: RunReport) -> str:
    """The verdict on the primary artifact of a run, in words."""
    from hfcompress.card.verdicts import reason
    from hfcompress.evaluation.explain import primary_artifact

    subject = primary_artifact(report.artifacts, report.sequence)
    if subject is None or subject.delta is None:
        return "No verdict: no artifact was compared with the teacher."
    delta = subject.delta
    found = f"({delta.confidence:.0%} interval {_interval(delta)}, {len(subject.per_query)} test queries)"
    speed = (
        f"It is {subject.speedup:.1f} times as fast as the teacher in PyTorch{_there(subject)}, and takes "
        f"{subject.size_bytes / 1e6:.1f} MB instead of {report.teacher.size_bytes / 1e6:.1f} MB."
    )
    if delta.decision == "non-inferior":
        return (
            f"{subject.name} ranks as well as its teacher: a loss of {delta.margin:g} nDCG@10 or more is ruled out "
            f"{found}. {speed}"
        )
    why = reason(report, subject).replace("`", "")
    return (
        f"{subject.name} is not shown to rank as well as its teacher at a margin of {delta.margin:g} nDCG@10: "
        f"{delta.decision}, {why} {found}. {speed}"
    )


def _there(subject: Artifact) -> str:
    """The device that an artifact and its teacher were timed on, if not the CPU, with the teacher in its precision."""
    if subject.device == "cpu":
        return ""
    same = [each for each in subject.device_teachers if each.precision == subject.precision]
    also = f" ({same[0].speedup:.1f} times as fast as in {subject.precision})" if same else ""
    return f" in fp32 on {subject.device}{also}"


def _print_verdict(name: str, other: str, delta: Delta, console: Console) -> None:
    """Print the verdict on one artifact, and on each data set."""
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
