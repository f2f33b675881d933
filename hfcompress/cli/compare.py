"""`hfcompress compare`, and checks of options that other verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

from hfcompress.cli import long_documents as long
from hfcompress.cli import options
from hfcompress.cli.tables import print_evaluation
from hfcompress.cli.terminal import start, write_json
from hfcompress.errors import DataError

RANKER_HELP = "A folder (its fastest file), a Hub id, a file such as DIR/onnx/model_quantized.onnx, or a run file."


@long.with_long_documents
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=f"The baseline. {RANKER_HELP}")],
    second: Annotated[str, typer.Argument(metavar="B", help="The ranker to compare with A; the same kinds of names.")],
    data: options.Data,
    split: options.Split = "test",
    max_length: options.MaxLength = None,
    *,
    reading: long.LongDocuments,
    max_queries: options.MaxQueries = None,
    candidates: options.Candidates = 20,
    margin: options.Margin = 0.01,
    metric: options.Metrics = None,
    device: options.Device = "auto",
    json_file: options.Json = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Compare two rankers query by query: does B rank as well as A?

    Example: hfcompress compare out/quickstart/.hfcompress/teacher out/quickstart/onnx/model_quantized.onnx
    --data api-search
    """
    from hfcompress.evaluation.standalone import evaluate_systems
    from hfcompress.evaluation.systems import resolve_system

    console = start(json_file)
    check_options(split, margin)
    result = evaluate_systems(
        [resolve_system(name, name) for name in (first, second)],
        data,
        split,
        max_length=max_length,
        max_queries=max_queries,
        candidates=candidates,
        margin=margin,
        progress=not quiet,
        metrics=metric or (),
        device=device,
        long_documents=reading,
    )
    write_json(json_file, result.model_dump_json(indent=2))
    print_evaluation(result, metric or (), console)


def check_options(split: str, margin: float) -> None:
    """Check the options that depend on neither the data nor the models.

    Raises:
        DataError: The split does not exist, or the margin is not above 0.
    """
    if split not in ("train", "dev", "test"):
        raise DataError("There is no such split", value=split, expected="train, dev or test", remedy="correct --split")
    if not margin > 0:
        raise DataError("The margin is not valid", value=margin, expected="a margin above 0", remedy="correct --margin")


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
