"""`hfcompress inspect`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hfcompress.cli.tables import print_report
from hfcompress.cli.terminal import Debug, Json, console_for, write_json


def inspect(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or any model that hfcompress opens.")],
    png: Annotated[
        Path | None,
        typer.Option(
            help="Where to draw the plan; by default figures/structure.png in the folder of a run or a prune."
        ),
    ] = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Show what was pruned, as a table and as a heat map, and what was measured.

    Example: hfcompress inspect out/quickstart
    """
    from hfcompress.evaluation.pruned import read_pruning
    from hfcompress.evaluation.report import REPORT_FILE, RunReport
    from hfcompress.figures import structure
    from hfcompress.files import write_bytes
    from hfcompress.layout import PRUNING_FILE, STRUCTURE_FILE, WORK_FOLDER
    from hfcompress.models import load_config
    from hfcompress.quiet import silence_libraries
    from hfcompress.surgery import plan_of_config

    silence_libraries()
    console = console_for(json_file)
    config = load_config(str(folder))
    plan = plan_of_config(config)
    table = Table(title=f"{config.model_type}, {len(plan.layers)} of {plan.layers_of} layers", title_justify="left")
    for name in ("layer", "heads", "kept heads", "FFN"):
        table.add_column(name)
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
    # Other folders, such as those of the Hub's cache, are not for hfcompress to write into.
    ours = (folder / WORK_FOLDER).is_dir() or (folder / PRUNING_FILE).is_file()
    if png or (ours and os.access(folder, os.W_OK)):
        drawn = write_bytes(png or folder / STRUCTURE_FILE, structure(pruning))
        console.print(f"heat map: {drawn}", soft_wrap=True)
    else:
        reason = "is read-only" if ours else "is of no run on this machine"
        console.print(f"heat map: not drawn, since {folder} {reason}; --png FILE draws it elsewhere", soft_wrap=True)
    if report:
        print_report(report, console)
