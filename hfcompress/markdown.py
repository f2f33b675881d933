"""Numbers, tables and code spans as every card writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right_from: int | None = None) -> str:
    """A Markdown table; columns from `right_from` on are aligned to the right."""
    rule = ["---:" if right_from is not None and column >= right_from else "---" for column in range(len(head))]
    lines = [head, rule, *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """A code span that holds `text`, whatever backticks are in it."""
    ticks = "`" * (_longest_run(text) + 1)
    pad = " " if "`" in text else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def fence(text: str, language: str) -> str:
    """A code block that holds `text`, whatever backticks are in it."""
    ticks = "`" * max(3, _longest_run(text) + 1)
    newline = "" if text.endswith("\n") else "\n"
    return f"{ticks}{language}\n{text}{newline}{ticks}"


def details(summary: str, body: str) -> str:
    """A part that the reader unfolds; GitHub and the Hub both know it."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def plain(text: str) -> str:
    """Text that is shown as it is, whatever Markdown or HTML it looks like."""
    return re.sub(r"([\\`*_{}\[\]<>#~$&!])", r"\\\1", text)


def fixed(value: float, digits: int = 4) -> str:
    """A metric: `0.5674`. Never a negative zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def signed(value: float, digits: int = 4) -> str:
    """A difference, with its sign: `+0.0013`."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def percent(share: float, digits: int = 0) -> str:
    """A share in [0, 1] in percent: `95%`. Digits are added where the share would look like none or all."""
    text = f"{100 * share:.{digits}f}%"
    if digits < 2 and (share > 0) != (float(text[:-1]) > 0):
        return percent(share, digits + 1)
    if digits < 2 and (share < 1) != (float(text[:-1]) < 100):
        return percent(share, digits + 1)
    return text


def number(value: float) -> str:
    """A measured speed or time: `1,234` from 100 on, `96.3` below."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def times(factor: float) -> str:
    """A speed-up: `9.3x`."""
    return f"{factor:.1f}x"


def megabytes(size: int) -> str:
    """Bytes in MB (10^6 bytes): `14.9`."""
    return f"{size / 1e6:,.1f}"


def duration(seconds: float) -> str:
    """A wall time: `0.4 s`, `42 s`, `6 min 12 s`, `1 h 02 min`."""
    if seconds < 9.95:  # what is rounded to 10.0 has two digits already
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(amount: int, noun: str) -> str:
    """A number of things: `1 thread`, `2 threads`."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"


def _cell(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text).replace("|", "\\|")


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
