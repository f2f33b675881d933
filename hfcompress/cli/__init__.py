"""The `hfcompress` command. Each verb is a module that loads what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from hfcompress.cli import card, compare, compress, data, doctor, evaluate, inspect, prune, publish, rank, run
from hfcompress.cli.terminal import err
from hfcompress.errors import HfCompressError

app = typer.Typer(
    name="hfcompress",
    help="Make Hugging Face rerankers faster and smaller, and prove that they still rank as well.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
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

INTERRUPTED = 130
EXIT_CODES = {
    0: "it is done",
    1: "of `publish`: the Hub is busy, try again later. Of `doctor`: something required does not work. Else a fault of "
    "hfcompress, with a traceback; please report it",
    2: "something that you can mend: arguments, recipe, data, model, output folder; stderr says what and how",
    compress.NOT_REACHED: "of `compress`: nothing that is fast enough was shown to rank as well",
    INTERRUPTED: "interrupted (Ctrl-C); the same command goes on where it was, `run` with `--resume`",
}


def main(arguments: list[str] | None = None, program: str | None = None) -> None:
    """Run the command line; ends with one of `EXIT_CODES`.

    Args:
        arguments: What was typed behind the name of the program; by default the arguments of this process.
        program: Name of the program in help and messages.
    """
    code = 0
    try:
        code = app(arguments, prog_name=program, standalone_mode=False) or 0
    except HfCompressError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):  # not one of click's usage errors
            raise
        if message := error.format_message():  # empty where the help was shown for want of arguments
            err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
        sys.exit(2)
    if code == INTERRUPTED:
        err.print("interrupted: a run goes on from its last finished step with the same command and --resume")
    if code:
        sys.exit(code)
