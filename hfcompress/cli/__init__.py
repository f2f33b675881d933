"""The `hfcompress` command. Each verb is a module that loads what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import errno
import re
import sys
import traceback
from importlib.metadata import version as version_of
from typing import Annotated

import typer
from rich.markup import escape

from hfcompress.cli import card, compare, compress, data, doctor, evaluate, inspect, prune, publish, rank, run
from hfcompress.cli.interruption import TERMINATED, advice, exit_code, interruptions
from hfcompress.cli.terminal import err
from hfcompress.errors import HfCompressError, OutputError
from hfcompress.quiet import debugging

app = typer.Typer(
    name="hfcompress",
    help="Make Hugging Face rerankers faster and smaller, and prove that they still rank as well.",
    no_args_is_help=True,
    epilog=(
        "Exit codes: 0 done; 1 an unexpected fault, or a Hub that cannot be reached; 2 a fault that the message says "
        "how to mend; 3 the goal of compress is not reached; 130 Ctrl-C; 143 SIGTERM."
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
    card.card,
    publish.publish,
    doctor.doctor,
):
    app.command()(verb)
app.add_typer(data.app, name="data")

REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})  # what a system says of a file that it keeps closed
INTERRUPTED = 130  # what typer makes of a KeyboardInterrupt
EXIT_CODES = {
    0: "it is done",
    1: "of `publish`: the Hub is busy, try again later. Of `doctor`: something required does not work. Else a fault of "
    "hfcompress, with a traceback; please report it",
    2: "something that you can mend: arguments, recipe, data, model, output folder or disk; stderr says what and how",
    compress.NOT_REACHED: "of `compress`: nothing that is fast enough was shown to rank as well",
    INTERRUPTED: "interrupted (Ctrl-C); stderr has the command that goes on, where one does",
    TERMINATED: "terminated (SIGTERM), as by a scheduler; else as after Ctrl-C",
}


def main(arguments: list[str] | None = None, program: str | None = None) -> None:
    """Run the command line; ends with one of `EXIT_CODES`.

    Args:
        arguments: What was typed behind the name of the program; by default the arguments of this process.
        program: Name of the program in help and messages.
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
    """Run a verb; returns the exit code, or raises what is a fault of hfcompress."""
    try:
        return app(arguments, prog_name=program, standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        fault = error if isinstance(error, HfCompressError) else _fault_of_the_system(error)
        if fault:
            if debugging():
                traceback.print_exc()
            err.print(f"[bold red]error:[/] {escape(str(fault))}", soft_wrap=True)
            return fault.exit_code
        if not hasattr(error, "format_message"):  # not one of click's usage errors
            raise
        if message := error.format_message():  # empty where the help was shown for want of arguments
            err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
        return 2


def _fault_of_the_system(error: Exception) -> OutputError | None:
    """A full disk, or a file that is closed to this user, as a fault that can be mended; None for anything else."""
    rust = re.search(r"\(os error (\d+)\)", str(error))  # of safetensors and tokenizers, which raise no OSError
    code = error.errno if isinstance(error, OSError) else int(rust[1]) if rust else None
    if code == errno.ENOSPC:
        return OutputError(
            "The disk is full",
            value=str(error),
            expected="room for the output folder and for temporary files",
            remedy="make room, or name a folder on another disk with --out (and TMPDIR for temporary files)",
        )
    if code in REFUSED:
        return OutputError(
            "A file or folder is closed to this user",
            value=str(error),
            expected="input that can be read, and an output folder that can be written",
            remedy="change its permissions, or name another folder",
        )
    return None
