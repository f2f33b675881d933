"""`hfcompress evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfcompress.cli.tables import add_row, quality_cells, result_table
from hfcompress.cli.terminal import DATA_HELP, Quiet, out
from hfcompress.errors import DataError


def evaluate(
    model: Annotated[str, typer.Argument(help="Folder of a run, or any cross-encoder: a folder or a Hub id.")],
    data: Annotated[list[str], typer.Option("--data", help=DATA_HELP)],
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "test",
    baseline: Annotated[str | None, typer.Option(help="Model to compare with, query by query.")] = None,
    runtime: Annotated[str | None, typer.Option(help="torch, onnxruntime or openvino; the fastest by default.")] = None,
    max_length: Annotated[int | None, typer.Option(min=8, help="Longest input in tokens.")] = None,
    max_queries: Annotated[
        int | None, typer.Option(min=1, help="At most so many queries, by hash of their id.")
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Documents to rank for a query.")] = 20,
    margin: Annotated[float, typer.Option(help="Largest loss in nDCG@10 that counts as ranking as well.")] = 0.01,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    quiet: Quiet = False,
) -> None:
    """Measure how well and how fast a model ranks, alone or against a baseline on the same candidates.

    Example: hfcompress evaluate out/quickstart --data api-search --baseline out/quickstart/.hfcompress/teacher
    """
    from hfcompress.evaluation.standalone import evaluate_models
    from hfcompress.files import write_text
    from hfcompress.quiet import silence_libraries

    silence_libraries()
    if split not in ("train", "dev", "test"):
        raise DataError("There is no such split", value=split, expected="train, dev or test", remedy="correct --split")
    if runtime not in (None, "torch", "onnxruntime", "openvino"):
        raise DataError(
            "There is no such runtime",
            value=runtime,
            expected="torch, onnxruntime or openvino",
            remedy="correct --runtime, or leave it out",
        )
    if margin <= 0:
        raise DataError("The margin does not fit", value=margin, expected="a margin above 0", remedy="correct --margin")
    result = evaluate_models(
        model, baseline, data, split, runtime, max_length, max_queries, candidates, margin, progress=not quiet
    )
    if json_file:
        write_text(json_file, result.model_dump_json(indent=2) + "\n")
    table = result_table(f"{result.data} {split}, {len(result.artifacts[0].per_query)} queries")
    table.add_row(result.first_stage.name, *quality_cells(result.first_stage.quality), *[""] * 5)
    for artifact in result.artifacts:
        add_row(table, artifact)
    out.print(table)
