"""`hfcompress export`."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer

from hfcompress.cli import options
from hfcompress.cli.terminal import start, step_lines


def export(
    model: Annotated[
        str, typer.Argument(metavar="DIR", help="A folder of a run, or any cross-encoder: a folder or a Hub id.")
    ],
    to: Annotated[str, typer.Option("--to", help="opensearch, elasticsearch, vespa or tei.")],
    out: options.OutFolder,
    file: Annotated[
        str | None,
        typer.Option(help="Path in DIR of the ONNX graph to export; by default the artifact that the report deploys."),
    ] = None,
    max_length: options.MaxLength = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Export a model to a search engine or a model server: files that it loads without editing.

    The files are checked first: graph and tokenizer alone give the scores of the model. Start with README.md in the
    output folder. export.json records which artifact was exported, and why.

    Example: hfcompress export out/quickstart --to opensearch --out out/opensearch

    Example: hfcompress export out/quickstart --to vespa --max-length 256 --out out/vespa
    """
    from hfcompress.targets.export import README
    from hfcompress.targets.export import export as write

    console = start()
    with step_lines(console, quiet):
        write(model, cast(Any, to), out, file=file, max_length=max_length)
    console.print(str(out / README), soft_wrap=True, markup=False)
