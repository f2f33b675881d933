"""What all verbs share: where they print, how quiet they are, and where their result goes as JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from hfcompress.errors import OutputError
from hfcompress.quiet import DEBUG_VARIABLE

LOG_WIDTH = 132  # columns where there is no terminal to ask: a log or a pipe
STDOUT = Path("-")


def _console(stderr: bool = False) -> Console:
    """A console that honours NO_COLOR, TERM=dumb and COLUMNS, and is as wide as the terminal."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = LOG_WIDTH
    return console


out, err = _console(), _console(stderr=True)


def _debug(value: bool) -> bool:
    if value:
        os.environ[DEBUG_VARIABLE] = "1"
    return value


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars and no lines about steps.")]
DATA_HELP = (
    "api-search or recommend; a folder or file (BEIR, TREC, CSV, JSON, Parquet, or by save_to_disk); hub:ORG/NAME; "
    "irds:ID. Repeatable."
)
Json = Annotated[
    Path | None,
    typer.Option("--json", help="Write the result as JSON to this file; - for stdout, all else then goes to stderr."),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", callback=_debug, help=f"Show other libraries' notices, and tracebacks; also {DEBUG_VARIABLE}=1."
    ),
]


def console_for(json_file: Path | None) -> Console:
    """Where a verb prints: stdout, unless its result goes there as JSON.

    Raises:
        OutputError: The file cannot be written; found before any work.
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


def sayer(console: Console, quiet: bool) -> Callable[[str], None]:
    """What prints a line about a step, above the bars that are drawn."""

    def say(line: str) -> None:
        from hfcompress.progress import between_bars

        with between_bars():
            console.print(escape(line), soft_wrap=True)

    return (lambda line: None) if quiet else say


def write_json(json_file: Path | None, text: str) -> None:
    """Write a result where `--json` says."""
    from hfcompress.files import write_text

    if json_file == STDOUT:
        sys.stdout.write(text.rstrip("\n") + "\n")
    elif json_file is not None:
        write_text(json_file, text.rstrip("\n") + "\n")
