"""`hfcompress evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfcompress.cli import long_documents as long
from hfcompress.cli import options
from hfcompress.cli.compare import check_options, check_runtime
from hfcompress.cli.tables import print_evaluation
from hfcompress.cli.terminal import start, write_json


@long.with_long_documents
def evaluate(
    model: Annotated[
        str, typer.Argument(help="Folder of a run, any cross-encoder (a folder or a Hub id), or a TREC run file.")
    ],
    data: options.Data,
    split: options.Split = "test",
    baseline: Annotated[str | None, typer.Option(help="Model or run file to compare with, query by query.")] = None,
    runtime: options.FastestRuntime = None,
    max_length: options.MaxLength = None,
    *,
    reading: long.LongDocuments,
    max_queries: options.MaxQueries = None,
    candidates: options.Candidates = 20,
    margin: options.Margin = 0.01,
    metric: options.Metrics = None,
    threshold: options.Thresholds = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    provider: options.Providers = None,
    run: Annotated[Path | None, typer.Option(help="Write the ranking to this file as a TREC run.")] = None,
    json_file: options.Json = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure the ranking quality and speed of a model, alone or against a baseline on the same candidates.

    MODEL and the baseline may be run files in TREC's six columns. Their speed is not measured. With --threshold, both
    must be models: it shows which share of the pairs changes sides, and precision and recall of both.

    Example: hfcompress evaluate out/quickstart --data api-search --baseline out/quickstart/.hfcompress/teacher
    """
    from hfcompress.evaluation.standalone import evaluate_models

    console = start(json_file)
    check_options(split, margin)
    check_runtime(runtime)
    result = evaluate_models(
        model,
        baseline,
        data,
        split,
        runtime=runtime,
        max_length=max_length,
        max_queries=max_queries,
        candidates=candidates,
        margin=margin,
        progress=not quiet,
        metrics=metric or (),
        run_file=run,
        device=device,
        dtype=dtype,
        providers=provider or (),
        thresholds=threshold or (),
        long_documents=reading,
    )
    write_json(json_file, result.model_dump_json(indent=2))
    print_evaluation(result, metric or (), console)
