"""Figures with what they have to reach, and a table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A figure.

    Attributes:
        part: Part that it belongs to.
        figure: What was measured.
        value: The result.
        bar: What it has to be; empty for a figure that is only reported.
        reached: Whether it is.
    """

    part: str
    figure: str
    value: str
    bar: str = ""
    reached: bool = True


def judged(part: str, figure: str, value: float, form: str, bar: float, at_most: bool = False) -> Row:
    """A figure with a bar.

    Args:
        part: Part that it belongs to.
        figure: What was measured.
        value: The result.
        form: Format of result and bar.
        bar: The least value.
        at_most: The bar is the largest value instead.
    """
    reached = value <= bar if at_most else value >= bar
    return Row(part, figure, form.format(value), f"{'at most' if at_most else 'at least'} {form.format(bar)}", reached)


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [f"| {row.part} | {row.figure} | {row.value} | {row.bar} | {verdict(row)} |" for row in rows]
    return "\n".join(["| part | figure | result | bar | |", "|---|---|---:|---:|---|", *lines])


def verdict(row: Row) -> str:
    """Whether the bar of a row is reached, in a word."""
    return "" if not row.bar else "reached" if row.reached else "**missed**"
