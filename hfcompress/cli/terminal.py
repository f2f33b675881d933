"""Shared by all verbs: consoles, and results as JSON."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from hfcompress.errors import OutputError

LOG_WIDTH = 132  # columns of a log or a pipe, which have no width of their own
STDOUT = Path("-")


def make_console(stderr: bool = False) -> Console:
    """A console that respects NO_COLOR, TERM=dumb and COLUMNS, and is as wide as the terminal."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = LOG_WIDTH
    return console


out, err = make_console(), make_console(stderr=True)


def start(json_file: Path | None = None) -> Console:
    """Silence other libraries, and return the console of a verb: see `console_for`."""
    from hfcompress.utils.quiet import silence_libraries

    silence_libraries()
    return console_for(json_file)


def console_for(json_file: Path | None) -> Console:
    """The console of a verb: stdout, or stderr if the JSON result goes to stdout.

    Raises:
        OutputError: The JSON file cannot be written. This is checked before any work.
    """
    if json_file == STDOUT:
        return err
    if json_file is not None and (json_file.is_dir() or (json_file.parent.exists() and not json_file.parent.is_dir())):
        raise OutputError(
            "The result cannot be written as JSON",
            value=str(json_file),
            expected="a file in a folder, or - for standard output",
            remedy="correct --json",
        )
    return out


def step_lines(console: Console, quiet: bool) -> AbstractContextManager[None]:
    """Print the log lines about steps during the block, above the progress bars; none if `quiet`."""
    from hfcompress.utils.log import lines_to

    return lines_to(lambda line: None if quiet else console.print(escape(line), soft_wrap=True))


def write_json(json_file: Path | None, text: str) -> None:
    """Write a result to the file of `--json`, if one is given."""
    from hfcompress.utils.files import write_text

    if json_file == STDOUT:
        sys.stdout.write(text.rstrip("\n") + "\n")
    elif json_file is not None:
        write_text(json_file, text.rstrip("\n") + "\n")
