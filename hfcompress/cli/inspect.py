"""`hfcompress inspect`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hfcompress.cli import options
from hfcompress.cli.tables import print_report
from hfcompress.cli.terminal import start, write_json


def inspect(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or any model that hfcompress supports.")],
    png: Annotated[
        Path | None,
        typer.Option(
            help="File for the heat map; by default figures/structure.png in the output folder of run or prune."
        ),
    ] = None,
    json_file: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Show the pruned structure as a table and a heat map, and the results of the run.

    Example: hfcompress inspect out/quickstart
    """
    from hfcompress.card.figures import structure
    from hfcompress.models.layout import PRUNING_FILE, STRUCTURE_FILE, WORK_FOLDER
    from hfcompress.models.load import load_config
    from hfcompress.models.surgery import plan_of_config
    from hfcompress.pruning.summary import read_pruning
    from hfcompress.report.report import REPORT_FILE, RunReport
    from hfcompress.utils.files import write_bytes

    console = start(json_file)
    config = load_config(str(folder))
    plan = plan_of_config(config)
    title = f"{config.model_type}, {len(plan.layers)} of {plan.layers_of} layers"
    table = Table("layer", "heads", "kept heads", "FFN", title=title, title_justify="left")
    for layer in plan.layers:
        heads = ", ".join(map(str, layer.heads)) or "none"
        table.add_row(str(layer.layer), f"{len(layer.heads)}/{plan.heads_of}", heads, f"{len(layer.ffn)}/{plan.ffn_of}")
    console.print(table)
    report = RunReport.load(folder) if (folder / REPORT_FILE).is_file() else None
    pruning = read_pruning(folder, config, report)
    shown = {
        "model_type": config.model_type,
        "plan": plan.to_dict(),
        "pruning": pruning.model_dump(mode="json"),
        "report": report.model_dump(mode="json") if report else None,
    }
    write_json(json_file, json.dumps(shown, indent=2))
    # hfcompress does not write into folders of others, such as the Hub's cache.
    ours = (folder / WORK_FOLDER).is_dir() or (folder / PRUNING_FILE).is_file()
    if png or (ours and os.access(folder, os.W_OK)):
        drawn = write_bytes(png or folder / STRUCTURE_FILE, structure(pruning))
        console.print(f"heat map: {drawn}", soft_wrap=True)
    else:
        reason = "is read-only" if ours else "is not the output of a run on this machine"
        console.print(f"heat map: not drawn because {folder} {reason}; --png FILE writes it elsewhere", soft_wrap=True)
    if report:
        print_report(report, console, every_score=True)
