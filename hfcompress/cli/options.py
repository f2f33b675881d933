"""Options that several verbs share, as types of their parameters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hfcompress.utils.quiet import DEBUG_VARIABLE


def _debug(value: bool) -> bool:
    if value:
        os.environ[DEBUG_VARIABLE] = "1"
    return value


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print neither progress bars nor lines about steps.")]
CrossEncoder = Annotated[str, typer.Argument(help="A cross-encoder: a folder, a Hub id, or package:NAME/FOLDER.")]
OutFolder = Annotated[Path, typer.Option("--out", help="Output folder: new, empty, or from an earlier call.")]
DATA_HELP = (
    "api-search or recommend; a folder or file (BEIR, TREC, CSV, JSON, Parquet, or save_to_disk); hub:ORG/NAME; "
    "irds:ID. Repeatable."
)
METRIC_HELP = "Also show this metric: ndcg@K, mrr@K, recall@K, p@K, hit@K, judged@K, map or auc. Repeatable."
Data = Annotated[list[str], typer.Option("--data", help=DATA_HELP)]
Split = Annotated[str, typer.Option(help="train, dev or test.")]
MaxLength = Annotated[int | None, typer.Option(min=8, help="Maximum input length in tokens; by default the model's.")]
MaxQueries = Annotated[int | None, typer.Option(min=1, help="Maximum number of queries, chosen by hash of their ids.")]
Candidates = Annotated[int, typer.Option(min=1, help="Documents to rank per query.")]
Margin = Annotated[float, typer.Option(help="Non-inferiority margin: largest acceptable loss in nDCG@10.")]
Metrics = Annotated[list[str] | None, typer.Option(help=METRIC_HELP)]
THRESHOLD_HELP = (
    "Compare the scores with the baseline's at this threshold on the score that rank returns, or at best: that of the "
    "baseline's highest F1 on dev. Repeatable."
)
Thresholds = Annotated[list[str] | None, typer.Option("--threshold", help=THRESHOLD_HELP)]
FastestRuntime = Annotated[str | None, typer.Option(help="torch, onnxruntime or openvino; by default the fastest.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of the runtime; 0 uses all cores that it may use.")]
DEVICE_HELP = "Device of models in PyTorch: auto (an accelerator, if there is one), cpu, cuda, cuda:N or mps."
Device = Annotated[str, typer.Option(help=DEVICE_HELP)]
Dtype = Annotated[str, typer.Option(help="Precision of a model in PyTorch: float32, float16 or bfloat16.")]
Providers = Annotated[
    list[str] | None,
    typer.Option("--provider", help="Execution provider of ONNX Runtime, the preferred one first. Repeatable."),
]
Engine = Annotated[str, typer.Option(help="local, this process; or ray, workers on a Ray cluster.")]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster: host:port, auto or local; by default RAY_ADDRESS, else one that runs here, else a new one."
    ),
]
Workers = Annotated[int, typer.Option(min=0, help="Workers on the Ray cluster; 0 for as many as it has room for.")]
WorkerCpus = Annotated[int, typer.Option("--cpus-per-worker", min=1, help="CPUs and threads of each of them.")]
Seed = Annotated[int, typer.Option(min=0, help="Random seed.")]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json", help="Write the result as JSON to this file; - for stdout, everything else then goes to stderr."
    ),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", callback=_debug, help=f"Show tracebacks and messages of other libraries; also {DEBUG_VARIABLE}=1."
    ),
]
