"""Progress of long work: a bar on a terminal, and elsewhere, as in the log of a job, a line now and then."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm as terminal_bar
from tqdm.std import tqdm

from hfcompress.markdown import duration

LINE_SECONDS = 30.0  # between two lines of one bar where there is no terminal
_LINE = "{desc}: {percentage:.0f}% ({n_fmt} of {total_fmt}), {elapsed} so far, {remaining} left{postfix}"


def interactive() -> bool:
    """Whether a bar can be redrawn in place: on a terminal that moves its cursor, or in a notebook."""
    return "ipykernel" in sys.modules or (sys.stderr.isatty() and os.environ.get("TERM") != "dumb")


def progress_bar(*args: Any, **kwargs: Any) -> tqdm:
    """A bar of tqdm, with its arguments; where bars cannot be drawn, one that writes a line every `LINE_SECONDS`."""
    return terminal_bar(*args, dynamic_ncols=True, **kwargs) if interactive() else _Lines(*args, **kwargs)


class _Lines(tqdm):
    """Writes a whole line instead of drawing over the last one; short work writes nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        every = {"mininterval": LINE_SECONDS, "maxinterval": LINE_SECONDS}
        super().__init__(*args, **{**kwargs, **every, "gui": True, "bar_format": _LINE})  # gui: draws nothing itself

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write a line to stderr."""
        print(msg or str(self), file=sys.stderr, flush=True)

    def clear(self, nolock: bool = False) -> None:
        """Nothing is drawn that could be cleared."""


@contextmanager
def between_bars() -> Iterator[None]:
    """Take drawn bars off the terminal while something else is written to it."""
    if not interactive():
        yield
        return
    with tqdm.external_write_mode(file=sys.stdout):
        yield


@contextmanager
def timed(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Say how long the block took, if it ends without an error."""
    start = time.perf_counter()
    yield
    say(f"{name}: done in {duration(time.perf_counter() - start)}")
