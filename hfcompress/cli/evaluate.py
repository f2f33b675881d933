"""`hfcompress evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfcompress.cli.compare import METRIC_HELP, check_options, check_runtime
from hfcompress.cli.tables import print_evaluation
from hfcompress.cli.terminal import DATA_HELP, Debug, Json, Quiet, console_for, write_json


def evaluate(
    model: Annotated[
        str, typer.Argument(help="Folder of a run, any cross-encoder (a folder or a Hub id), or a run file.")
    ],
    data: Annotated[list[str], typer.Option("--data", help=DATA_HELP)],
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "test",
    baseline: Annotated[str | None, typer.Option(help="Model or run file to compare with, query by query.")] = None,
    runtime: Annotated[str | None, typer.Option(help="torch, onnxruntime or openvino; the fastest by default.")] = None,
    max_length: Annotated[int | None, typer.Option(min=8, help="Longest input in tokens.")] = None,
    max_queries: Annotated[
        int | None, typer.Option(min=1, help="At most so many queries, by hash of their id.")
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Documents to rank for a query.")] = 20,
    margin: Annotated[float, typer.Option(help="Largest loss in nDCG@10 that counts as ranking as well.")] = 0.01,
    metric: Annotated[list[str] | None, typer.Option(help=METRIC_HELP)] = None,
    run: Annotated[Path | None, typer.Option(help="Write the ranking to this file, as trec_eval reads it.")] = None,
    json_file: Json = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure how well and how fast a model ranks, alone or against a baseline on the same candidates.

    A run file in TREC's six columns stands for a model as well; it is measured as it is, without speed.

    Example: hfcompress evaluate out/quickstart --data api-search --baseline out/quickstart/.hfcompress/teacher
    """
    from hfcompress.evaluation.standalone import evaluate_models
    from hfcompress.quiet import silence_libraries

    silence_libraries()
    console = console_for(json_file)
    check_options(split, margin)
    check_runtime(runtime)
    result = evaluate_models(
        model,
        baseline,
        data,
        split,
        runtime,
        max_length,
        max_queries,
        candidates,
        margin,
        progress=not quiet,
        metrics=metric or (),
        run_file=run,
    )
    write_json(json_file, result.model_dump_json(indent=2))
    print_evaluation(result, metric or (), console)
