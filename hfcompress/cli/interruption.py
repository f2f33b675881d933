"""Ctrl-C and SIGTERM: exit codes, and advice on how to continue."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

RESUMABLE = frozenset({"run", "compress", "score"})  # verbs with --resume
CONTINUING = frozenset({"publish", "data mine"})  # verbs that continue an earlier call without an option
SCORE, STREAM = "score", "-"  # a verb that resumes files, and what stands for a stream
_FROM_SIGNAL = 128  # shells report termination by signal N as 128 + N
TERMINATED = _FROM_SIGNAL + signal.SIGTERM


@contextmanager
def interruptions() -> Iterator[list[int]]:
    """Let SIGTERM interrupt the block as Ctrl-C does.

    Yields:
        A list to which the number of a received SIGTERM is added.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # handlers can be set in the main thread only
        yield received
        return

    def interrupt(number: int, _frame: object) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_code(received: Sequence[int]) -> int:
    """130 after Ctrl-C, 143 after SIGTERM."""
    return _FROM_SIGNAL + (received[0] if received else signal.SIGINT)


def advice(program: str | None, arguments: Sequence[str]) -> str:
    """How to continue after an interruption.

    Args:
        program: Program name; None for that of this process.
        arguments: Command-line arguments.
    """
    words = [argument for argument in arguments if not argument.startswith("-")]
    if {words[0] if words else "", " ".join(words[:2])} & CONTINUING:
        return "the same command continues where it stopped"
    if not words or words[0] not in RESUMABLE:
        return "the same command starts over"
    if words[0] == SCORE:
        if STREAM in arguments or any(argument.endswith(f"={STREAM}") for argument in arguments):
            return "the scores of a stream end here"
        what = "scored chunks"
    else:
        what = "finished steps"
    again = list(arguments) if "--resume" in arguments else [*arguments, "--resume"]
    return f"{what} are kept; continue with\n  {program or program_name()} {shlex.join(again)}"


def program_name() -> str:
    """The command that starts this program."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return "python -m hfcompress"
    found = shutil.which(path.name)
    return path.name if found and Path(found).resolve() == path.resolve() else shlex.quote(sys.argv[0])
