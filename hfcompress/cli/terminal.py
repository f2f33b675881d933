"""What all verbs share: where they print, and how quiet they are."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

out = Console(highlight=False)
out.width = max(out.width, 132)  # a table that is folded into 80 columns cannot be read; the terminal wraps its lines
err = Console(stderr=True, highlight=False)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars and no lines about steps.")]

DATA_HELP = (
    "api-search or recommend; a folder or file (BEIR, TREC, CSV, JSON, Parquet, or by save_to_disk); hub:ORG/NAME; "
    "irds:ID. Repeatable."
)
