"""Formatting of numbers, metric names and Markdown for terminal, reports and cards."""

from __future__ import annotations

import re
from collections.abc import Sequence

_METRIC_LABELS = {
    "ndcg": "nDCG", "mrr": "MRR", "map": "MAP", "recall": "Recall", "p": "P", "hit": "Hit", "judged": "Judged",
    "auc": "AUC",
}  # fmt: skip


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right_from: int | None = None) -> str:
    """A Markdown table; columns from index `right_from` on are right-aligned."""
    rule = ["---:" if right_from is not None and column >= right_from else "---" for column in range(len(head))]
    lines = [head, rule, *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """A code span of `text`, which may contain backticks."""
    ticks = "`" * (_longest_run(text) + 1)
    pad = " " if "`" in text else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def fence(text: str, language: str) -> str:
    """A code block of `text`, which may contain backticks."""
    ticks = "`" * max(3, _longest_run(text) + 1)
    newline = "" if text.endswith("\n") else "\n"
    return f"{ticks}{language}\n{text}{newline}{ticks}"


def details(summary: str, body: str) -> str:
    """A collapsible section, as GitHub and the Hub render it."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def plain(text: str) -> str:
    """Escape Markdown and HTML in `text`."""
    return re.sub(r"([\\`*_{}\[\]<>#~$&!])", r"\\\1", text)


def fixed(value: float, digits: int = 4) -> str:
    """A metric: `0.5674`, never negative zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def signed(value: float, digits: int = 4) -> str:
    """A difference with its sign: `+0.0013`."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def percent(share: float, digits: int = 0) -> str:
    """A share in [0, 1] as percentage: `95%`. Digits are added if it would be rounded to 0% or 100%."""
    text = f"{100 * share:.{digits}f}%"
    shown = float(text[:-1])
    if digits < 2 and ((share > 0) != (shown > 0) or (share < 1) != (shown < 100)):
        return percent(share, digits + 1)
    return text


def number(value: float) -> str:
    """A measured speed or time: `1,234` from 100 on, else `96.3`."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def times(factor: float) -> str:
    """A speed-up: `9.3x`."""
    return f"{factor:.1f}x"


def megabytes(size: int) -> str:
    """Bytes in MB (10^6 bytes): `14.9`."""
    return f"{size / 1e6:,.1f}"


def duration(seconds: float) -> str:
    """A wall time: `0.4 s`, `42 s`, `6 min 12 s`, `1 h 02 min`."""
    if seconds < 9.95:  # otherwise it would be rounded to 10.0
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(amount: int, noun: str) -> str:
    """A number with its noun: `1 thread`, `2 threads`."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"


def metric_label(metric: str) -> str:
    """Display name of a metric: `nDCG@10`; other names are returned unchanged."""
    kind, at, cutoff = metric.partition("@")
    return f"{_METRIC_LABELS.get(kind, kind)}{at}{cutoff}"


def _cell(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text).replace("|", "\\|")


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
