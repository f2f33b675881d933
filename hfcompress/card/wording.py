"""Numbers as text, as all sections of the card format them."""

from __future__ import annotations

from hfcompress.report.report import Delta, RunReport
from hfcompress.report.schema import Interval
from hfcompress.utils import text as md


def metric(report: RunReport) -> str:
    """Display name of the primary metric."""
    return md.metric_label(report.primary_metric)


def difference(delta: Delta) -> str:
    """A difference with its interval: `+0.0013 [-0.0090, +0.0200]`."""
    return f"{md.signed(delta.mean)} {interval(delta)}"


def interval(delta: Delta) -> str:
    """The interval of a difference: `[-0.0090, +0.0200]`."""
    return f"[{md.signed(delta.ci_low)}, {md.signed(delta.ci_high)}]"


def speedup(factor: float, bounds: Interval | None) -> str:
    """A speed-up with its interval, if it has one: `9.3x [9.1, 9.6]`."""
    return md.times(factor) + (f" [{bounds.low:.1f}, {bounds.high:.1f}]" if bounds else "")


def optional(values: dict[str, float], name: str) -> str:
    """A metric, or an empty text if it was not measured."""
    return md.fixed(values[name]) if name in values else ""
