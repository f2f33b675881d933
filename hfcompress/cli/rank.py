"""`hfcompress rank`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from hfcompress.cli import long_documents as long
from hfcompress.cli import options
from hfcompress.cli.compare import check_runtime
from hfcompress.cli.terminal import start
from hfcompress.errors import DataError


@long.with_long_documents
def rank(
    folder: Annotated[
        str, typer.Argument(help="Folder of a run, any cross-encoder, or a file such as DIR/onnx/model_quantized.onnx.")
    ],
    query: Annotated[str, typer.Option(help="The query.")],
    docs: Annotated[Path, typer.Option(help="Text file with one document per line.")],
    top_k: Annotated[int | None, typer.Option(min=1, help="Show only the best K documents.")] = None,
    *,
    reading: long.LongDocuments,
    runtime: options.FastestRuntime = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    provider: options.Providers = None,
    debug: options.Debug = False,
) -> None:
    """Rank the documents of a file for a query. Prints score, line number and document.

    Example: hfcompress rank out/quickstart --query "sort a list" --docs documents.txt
    """
    from hfcompress.data.lines import read_text
    from hfcompress.data.score_text import require_plain_documents
    from hfcompress.data.values import is_broken
    from hfcompress.evaluation.systems import resolve_model
    from hfcompress.models.load import load_config
    from hfcompress.rankers.base import RankerOptions

    start()
    check_runtime(runtime)
    if not query.strip():
        raise DataError("The query is empty", value=query, expected="some text", remedy="correct --query")
    if is_broken(query):
        raise DataError("The query is not UTF-8", value=ascii(query), expected="UTF-8", remedy="correct --query")
    if not docs.exists() or docs.is_dir():
        raise DataError("There is no such file", value=str(docs), expected="a text file", remedy="correct --docs")
    # Only line breaks end a document: `splitlines` would cut at form feeds and Unicode's separators, too.
    documents = read_text(docs).removesuffix("\n").split("\n")
    empty = [number for number, line in enumerate(documents, 1) if not line.strip()]
    if empty:
        raise DataError(
            f"{docs} has no documents, or empty ones",
            value=f"empty lines {empty[:5]}",
            expected="one document on every line",
            remedy="remove the empty lines",
        )
    subject = resolve_model(folder, folder, cast(Any, runtime), device, dtype, provider or ())
    require_plain_documents(folder, load_config(subject.folder))
    for hit in subject.ranker(None, RankerOptions(long_documents=reading)).rank(query, documents, top_k):
        typer.echo(f"{hit.score:.4f}\t{hit.position + 1}\t{documents[hit.position]}")
