"""Figures as the sections of the card put them."""

from __future__ import annotations

from hfcompress import markdown as md
from hfcompress.evaluation.report import Delta, RunReport
from hfcompress.evaluation.schema import Interval
from hfcompress.front_matter import METRIC_NAMES


def metric(report: RunReport) -> str:
    """Name of the primary metric."""
    return METRIC_NAMES.get(report.primary_metric, report.primary_metric)


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
    """A metric, or nothing where it was not measured."""
    return md.fixed(values[name]) if name in values else ""
