"""`hfcompress score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from hfcompress.cli import long_documents as long
from hfcompress.cli import options
from hfcompress.cli.compare import check_runtime
from hfcompress.cli.terminal import err, start, step_lines
from hfcompress.errors import ClusterError


@long.with_long_documents
def score(
    folder: Annotated[
        str, typer.Argument(help="Folder of a run, any cross-encoder, or a file such as DIR/onnx/model_quantized.onnx.")
    ],
    source: Annotated[
        list[Path],
        typer.Option(
            "--input", help="File with a pair on each row; - for standard input. A folder, or repeated, for many files."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(help="File for the rows with their scores; - for standard output. A new folder for many files."),
    ],
    format: Annotated[
        str | None,
        typer.Option(help="jsonl, csv, tsv, parquet or trec, of input and output; by default by the name of the file."),
    ] = None,
    query_column: Annotated[
        str | None, typer.Option(help="Column of the query; by default the one named query, question or the like.")
    ] = None,
    document_column: Annotated[
        str | None, typer.Option(help="Column of the document; by default the one named document, passage, text, ...")
    ] = None,
    title_column: Annotated[str | None, typer.Option(help="Column of a title to prepend to the document.")] = None,
    score_column: Annotated[str, typer.Option(help="Name of the new column.")] = "score",
    corpus: Annotated[
        str | None,
        typer.Option(
            help="Documents of a TREC run by id: a file, or a data set that also has the queries (as for --data of "
            "evaluate)."
        ),
    ] = None,
    queries: Annotated[Path | None, typer.Option(help="File with the queries of a TREC run by id.")] = None,
    activation: Annotated[
        bool, typer.Option(help="Apply the checkpoint's activation, as rank does, instead of writing raw logits.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="End at the first bad line; by default they are reported and left out.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on behind the last complete chunk or file of an interrupted call.")
    ] = False,
    chunk_pairs: Annotated[int, typer.Option(min=1, help="Pairs that are read, scored and written at a time.")] = 4096,
    flush_seconds: Annotated[
        float, typer.Option(min=0, help="Longest time that a line of a stream waits for others to be scored with.")
    ] = 0.5,
    runtime: options.FastestRuntime = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    provider: options.Providers = None,
    threads: options.Threads = 0,
    max_length: options.MaxLength = None,
    *,
    reading: long.LongDocuments,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens that the runtime gets at a time.")] = 2048,
    cache_mb: Annotated[
        int, typer.Option(min=0, help="Memory for tokenized documents, in 10^6 bytes; 0 for none.")
    ] = 16,
    engine: options.Engine = "local",
    address: options.Address = None,
    workers: options.Workers = 0,
    cpus_per_worker: options.WorkerCpus = 1,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Score the pairs of a file or stream of any length, with its other columns kept, in bounded memory.

    Reads and writes JSON lines, CSV, TSV, Parquet and TREC runs. Rows keep their order. Bad lines are reported with
    their number, counted, and left out. A stream is scored as it comes. Everything but the scores goes to stderr.

    Each file of a folder is scored whole, with --engine ray by the workers of a Ray cluster: the files of the output
    are the same.

    Example: hfcompress score out/quickstart --input pairs.jsonl --output scored.jsonl

    Example: hfcompress score out/quickstart --input pairs/ --output scored/ --engine ray --address auto
    """
    from hfcompress.cluster.connection import ray_settings
    from hfcompress.evaluation.systems import resolve_model
    from hfcompress.rankers.base import RankerOptions
    from hfcompress.scoring.columns import ColumnNames
    from hfcompress.scoring.score import ScoreSettings, score_file
    from hfcompress.scoring.shards import score_shards

    start()
    check_runtime(runtime)
    settings = ScoreSettings(
        format=format,
        names=ColumnNames(query_column, document_column, title_column, score_column),
        corpus=corpus,
        queries=queries,
        activation=activation,
        strict=strict,
        resume=resume,
        chunk_pairs=chunk_pairs,
        flush_seconds=flush_seconds,
        progress=not quiet,
    )
    cluster = ray_settings(engine, address, workers, cpus_per_worker)
    if cluster and (threads or provider):
        raise ClusterError(
            "Workers have options of their own",
            value=f"--threads {threads}, --provider {', '.join(provider or [])} with --engine ray",
            expected="--cpus-per-worker, and --device cuda for GPUs",
            remedy="use these instead",
        )
    here = "cpu" if cluster else device  # this machine may lack what the workers have
    model = resolve_model(folder, folder, cast(Any, runtime), here, dtype, provider or ())
    machine = RankerOptions(threads, batch_tokens, cache_bytes=cache_mb * 10**6, long_documents=reading)
    with step_lines(err, quiet):
        if cluster or len(source) > 1 or source[0].is_dir():
            score_shards(model, source, output, settings, machine, max_length, cluster, device)
        else:
            score_file(model, source[0], output, settings, machine, max_length)
