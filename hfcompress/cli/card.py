"""`hfcompress card`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfcompress.cli import options


def card(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    debug: options.Debug = False,
) -> None:
    """Render README.md and its figures again from report.json.

    Example: hfcompress card out/quickstart
    """
    from hfcompress.card import write_card
    from hfcompress.report.report import RunReport

    for path in write_card(folder, RunReport.load(folder)):
        typer.echo(str(path))
