"""`hfcompress compare`, and what it shares with `evaluate`, `rank` and `data mine`."""

from __future__ import annotations

from typing import Annotated

import typer

from hfcompress.cli.tables import print_evaluation
from hfcompress.cli.terminal import DATA_HELP, Debug, Json, Quiet, console_for, write_json
from hfcompress.errors import DataError

METRIC_HELP = "Show this metric, too: ndcg@K, mrr@K, recall@K, p@K, hit@K, judged@K, map or auc. Repeatable."
RANKER_HELP = "A folder (its fastest file), a Hub id, a file such as DIR/onnx/model_quantized.onnx, or a run file."


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=f"What B is compared with. {RANKER_HELP}")],
    second: Annotated[str, typer.Argument(metavar="B", help="What is judged; the same kinds.")],
    data: Annotated[list[str], typer.Option("--data", help=DATA_HELP)],
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "test",
    max_length: Annotated[int | None, typer.Option(min=8, help="Longest input in tokens; each model's own.")] = None,
    max_queries: Annotated[
        int | None, typer.Option(min=1, help="At most so many queries, by hash of their id.")
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Documents to rank for a query.")] = 20,
    margin: Annotated[float, typer.Option(help="Largest loss in nDCG@10 that counts as ranking as well.")] = 0.01,
    metric: Annotated[list[str] | None, typer.Option(help=METRIC_HELP)] = None,
    json_file: Json = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare two rankers query by query: does B rank as well as A?

    Example: hfcompress compare out/quickstart/.hfcompress/teacher out/quickstart/onnx/model_quantized.onnx
    --data api-search
    """
    from hfcompress.evaluation.standalone import compare_rankers
    from hfcompress.quiet import silence_libraries

    silence_libraries()
    console = console_for(json_file)
    check_options(split, margin)
    result = compare_rankers(
        first, second, data, split, max_length, max_queries, candidates, margin, not quiet, metric or ()
    )
    write_json(json_file, result.model_dump_json(indent=2))
    print_evaluation(result, metric or (), console)


def check_options(split: str, margin: float) -> None:
    """Check what is wrong whatever the data and the models are.

    Raises:
        DataError: There is no such split, or the margin is not above 0.
    """
    if split not in ("train", "dev", "test"):
        raise DataError("There is no such split", value=split, expected="train, dev or test", remedy="correct --split")
    if not margin > 0:
        raise DataError("The margin does not fit", value=margin, expected="a margin above 0", remedy="correct --margin")


def check_runtime(runtime: str | None) -> None:
    """Check the name of a runtime.

    Raises:
        DataError: There is no such runtime.
    """
    if runtime not in (None, "torch", "onnxruntime", "openvino"):
        raise DataError(
            "There is no such runtime",
            value=runtime,
            expected="torch, onnxruntime or openvino",
            remedy="correct --runtime, or leave it out",
        )
