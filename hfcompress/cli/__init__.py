"""The `hfcompress` command. Each verb is a module that imports what it needs when it runs, so `--help` is fast."""

from __future__ import annotations

import errno
import re
import sys
import traceback
from importlib.metadata import version as version_of
from typing import Annotated

import typer
from rich.markup import escape

from hfcompress.cli import (
    card,
    compare,
    compress,
    data,
    doctor,
    evaluate,
    export,
    inspect,
    prune,
    publish,
    rank,
    run,
    score,
    serve,
)
from hfcompress.cli.interruption import TERMINATED, advice, exit_code, interruptions
from hfcompress.cli.terminal import err
from hfcompress.errors import HfCompressError, OutputError
from hfcompress.utils.quiet import debugging

app = typer.Typer(
    name="hfcompress",
    help="Make Hugging Face rerankers faster and smaller, and prove that they still rank as well.",
    no_args_is_help=True,
    epilog=(
        "Exit codes: 0 success; 1 unexpected error, or the Hub cannot be reached; 2 an error that the message says how "
        "to correct; 3 compress did not reach its goal; 130 Ctrl-C; 143 SIGTERM."
    ),
    add_completion=True,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(version_of("hfcompress"))
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


for verb in (
    compress.compress,
    run.run,
    prune.prune,
    evaluate.evaluate,
    compare.compare,
    inspect.inspect,
    rank.rank,
    score.score,
    serve.serve,
    export.export,
    card.card,
    publish.publish,
    doctor.doctor,
):
    app.command()(verb)
app.add_typer(data.app, name="data")

REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})  # errors for files without permission
INTERRUPTED = 130  # typer's code for a KeyboardInterrupt
EXIT_CODES = {
    0: "success",
    1: "`publish`: the Hub cannot be reached or is busy, try again later. `doctor`: a required package does not work. "
    "Otherwise an error in hfcompress, with a traceback; please report it",
    2: "an error that you can correct: arguments, recipe, data, model, output folder or disk; stderr says how",
    compress.NOT_REACHED: "`compress`: no model that is fast and small enough was shown to rank as well",
    INTERRUPTED: "interrupted (Ctrl-C); stderr shows how to continue",
    TERMINATED: "terminated (SIGTERM), for example by a scheduler; stderr shows how to continue",
}


def main(arguments: list[str] | None = None, program: str | None = None) -> None:
    """Run the command line. The process exits with one of `EXIT_CODES`.

    Args:
        arguments: Command-line arguments without the program name; by default those of this process.
        program: Program name in help and messages.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    with interruptions() as received:
        code = _run(given, program)
    if code == INTERRUPTED:
        err.print(f"interrupted: {advice(program, given)}", soft_wrap=True, markup=False)
        sys.exit(exit_code(received))
    if code:
        sys.exit(code)


def _run(arguments: list[str], program: str | None) -> int:
    """Run a verb and return the exit code. Errors in hfcompress itself are raised."""
    try:
        return app(arguments, prog_name=program, standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        fault = error if isinstance(error, HfCompressError) else _system_error(error)
        if fault:
            if debugging():
                traceback.print_exc()
            err.print(f"[bold red]error:[/] {escape(str(fault))}", soft_wrap=True)
            return fault.exit_code
        if not hasattr(error, "format_message"):  # not a usage error of click
            raise
        if message := error.format_message():  # empty if the help was shown because there were no arguments
            err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
        return 2


def _system_error(error: Exception) -> OutputError | None:
    """Convert an error about a full disk or a missing permission to an `OutputError`; None for any other error."""
    rust = re.search(r"\(os error (\d+)\)", str(error))  # safetensors and tokenizers do not raise OSError
    code = error.errno if isinstance(error, OSError) else int(rust[1]) if rust else None
    if code == errno.ENOSPC:
        return OutputError(
            "The disk is full",
            value=str(error),
            expected="space for the output folder and for temporary files",
            remedy="free some space, or choose another disk with --out (and TMPDIR for temporary files)",
        )
    if code in REFUSED:
        return OutputError(
            "No permission to read or write a file or folder",
            value=str(error),
            expected="readable input and a writable output folder",
            remedy="change its permissions, or choose another folder",
        )
    return None
