"""`hfcompress run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfcompress.cli.tables import print_report
from hfcompress.cli.terminal import Debug, Json, Quiet, console_for, sayer, write_json


def run(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to write; new, empty, or of an earlier run.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Replace a setting, e.g. prune.heads=0.25. Repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep finished steps of an earlier run.")] = False,
    json_file: Json = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fine-tune, prune, recover, quantize, evaluate, and write the card: everything that a recipe says.

    Example: hfcompress run configs/quickstart.yaml --out out/quickstart
    """
    from hfcompress import pipeline
    from hfcompress.quiet import silence_libraries
    from hfcompress.recipe import Recipe

    silence_libraries()
    console = console_for(json_file)
    loaded = Recipe.load(recipe, settings)
    report = pipeline.run(loaded, out_folder, resume, progress=not quiet, say=sayer(console, quiet))
    write_json(json_file, report.model_dump_json(indent=2))
    print_report(report, console)
