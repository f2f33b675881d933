"""`hfcompress run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfcompress.cli import options
from hfcompress.cli.tables import print_report
from hfcompress.cli.terminal import start, step_lines, write_json


def run(
    recipe: Annotated[Path, typer.Argument(help="Recipe: a YAML file.")],
    out_folder: options.OutFolder,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a setting, e.g. prune.heads=0.25; null restores its default. Repeatable."),
    ] = None,
    device: Annotated[str | None, typer.Option(help=f"{options.DEVICE_HELP} By default that of the recipe.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the finished steps of an earlier run.")] = False,
    json_file: options.Json = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Run a recipe: fine-tune, prune, recover, quantize, evaluate, and write the model card.

    Example: hfcompress run configs/quickstart.yaml --out out/quickstart
    """
    from hfcompress import pipeline
    from hfcompress.recipe import Recipe

    console = start(json_file)
    overrides = [*(settings or []), *([f"device={device}"] if device else [])]
    loaded = Recipe.load(recipe, overrides or None)
    with step_lines(console, quiet):
        report = pipeline.run(loaded, out_folder, resume, progress=not quiet)
    write_json(json_file, report.model_dump_json(indent=2))
    print_report(report, console)
