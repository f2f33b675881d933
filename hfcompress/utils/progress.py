"""Progress bars: redrawn on a terminal, printed as occasional lines elsewhere, e.g. in the log of a job."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm as terminal_bar
from tqdm.std import tqdm

LINE_SECONDS = 30.0  # between two lines of a bar without a terminal
_LINE = "{desc}: {percentage:.0f}% ({n_fmt} of {total_fmt}), {elapsed} so far, {remaining} left{postfix}"


def interactive() -> bool:
    """Whether a bar can be redrawn in place: on a terminal with cursor control, or in a notebook."""
    return "ipykernel" in sys.modules or (sys.stderr.isatty() and os.environ.get("TERM") != "dumb")


def progress_bar(*args: Any, **kwargs: Any) -> tqdm:
    """A tqdm bar with these arguments; without a terminal, it prints a line every `LINE_SECONDS` instead."""
    return terminal_bar(*args, dynamic_ncols=True, **kwargs) if interactive() else _Lines(*args, **kwargs)


class _Lines(tqdm):
    """Prints whole lines instead of redrawing one; short work prints nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        every = {"mininterval": LINE_SECONDS, "maxinterval": LINE_SECONDS}
        super().__init__(*args, **{**kwargs, **every, "gui": True, "bar_format": _LINE})  # gui: no drawing by tqdm

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write a line to stderr."""
        print(msg or str(self), file=sys.stderr, flush=True)

    def clear(self, nolock: bool = False) -> None:
        """Do nothing, since nothing is drawn."""


@contextmanager
def between_bars() -> Iterator[None]:
    """Clear drawn bars from the terminal while something else is written to it."""
    if not interactive():
        yield
        return
    with tqdm.external_write_mode(file=sys.stdout):
        yield
