"""Options for documents that do not fit into one input, which several verbs share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hfcompress.errors import DataError

if TYPE_CHECKING:
    from hfcompress.recipe import LongDocuments

Mode = Annotated[
    str,
    typer.Option(
        "--long-documents",
        help="How documents are read that do not fit into one input: truncate, or chunk, which reads all of them.",
    ),
]
MaxTokensPerDoc = Annotated[
    int | None, typer.Option(min=1, help="Tokens of a document that are read at most; by default all.")
]
MaxChunks = Annotated[
    int | None, typer.Option(min=1, help="With chunk: chunks of a document at most, spread evenly; 16 by default.")
]
Overlap = Annotated[
    int | None, typer.Option(min=0, help="With chunk: tokens that a chunk repeats of the one before; 16 by default.")
]
TitleTokens = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="With chunk: tokens of the document's first line or sentence that every chunk begins with; 32 by default.",
    ),
]
Combine = Annotated[
    str | None,
    typer.Option(help="With chunk: score of the document: max, mean or first of those of its chunks; max by default."),
]


def long_documents_of(
    mode: str,
    max_tokens_per_doc: int | None,
    max_chunks: int | None,
    overlap: int | None,
    title_tokens: int | None,
    combine: str | None,
) -> LongDocuments:
    """The setting that the options ask for.

    Raises:
        DataError: An option without effect is given, or a value does not exist.
    """
    from hfcompress.recipe import LongDocuments

    chunking = {"max_chunks": max_chunks, "overlap": overlap, "title_tokens": title_tokens, "combine": combine}
    given = {name: value for name, value in chunking.items() if value is not None}
    for option, value, known in (
        ("--long-documents", mode, ("truncate", "chunk")),
        ("--combine", combine or "max", ("max", "mean", "first")),
    ):
        if value not in known:
            raise DataError(f"{option} has no such value", value=value, expected=" or ".join(known), remedy="use one")
    if mode == "truncate" and given:
        name = next(iter(given))
        raise DataError(
            f"--{name.replace('_', '-')} has no effect on truncated documents",
            value=given[name],
            expected="--long-documents chunk with it",
            remedy="add --long-documents chunk, or leave it out",
        )
    return LongDocuments.model_validate({"mode": mode, "max_tokens_per_doc": max_tokens_per_doc, **given})
