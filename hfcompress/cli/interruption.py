"""Ctrl-C and SIGTERM: how a command ends then, and how it goes on."""

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

RESUMABLE = frozenset({"run", "compress"})  # verbs with --resume
GOES_ON = frozenset({"publish", "data mine"})  # verbs that find by themselves what an earlier call has done
_FROM_SIGNAL = 128  # shells report the end by signal N as 128 + N
TERMINATED = _FROM_SIGNAL + signal.SIGTERM


@contextmanager
def interruptions() -> Iterator[list[int]]:
    """Let SIGTERM interrupt what runs in the block just as Ctrl-C does.

    Yields:
        A list, to which the number of a signal other than Ctrl-C's is added when it comes.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
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
    """How to go on after an interruption.

    Args:
        program: What was typed before the arguments; None for the name of this process.
        arguments: What was typed behind it.
    """
    words = [argument for argument in arguments if not argument.startswith("-")]
    if {words[0] if words else "", " ".join(words[:2])} & GOES_ON:
        return "the same command goes on where it stopped"
    if not words or words[0] not in RESUMABLE:
        return "the same command starts anew"
    again = list(arguments) if "--resume" in arguments else [*arguments, "--resume"]
    return f"finished steps are kept; go on with\n  {program or program_name()} {shlex.join(again)}"


def program_name() -> str:
    """This program as one would type it."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return "python -m hfcompress"
    found = shutil.which(path.name)
    return path.name if found and Path(found).resolve() == path.resolve() else shlex.quote(sys.argv[0])
