"""Options for documents that do not fit into one input, which several verbs share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from hfcompress.errors import DataError

if TYPE_CHECKING:
    from hfcompress.recipe import LongDocuments
else:
    LongDocuments = Any  # the names of types are evaluated for --help, which is to load nothing

READING = "reading"  # the parameter of a verb
ExitT = TypeVar("ExitT")  # what a verb returns: an exit code, or None

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


def with_long_documents(verb: Callable[..., ExitT]) -> Callable[..., ExitT]:
    """Give a verb the options of long documents, in the place of its parameter `reading`, which has what they ask for.

    Args:
        verb: A function with the keyword parameter `reading: LongDocuments`.
    """
    options = inspect.signature(long_documents_of, eval_str=True).parameters
    signature = inspect.signature(verb, eval_str=True)
    parameters = [
        each for own in signature.parameters.values() for each in (options.values() if own.name == READING else [own])
    ]

    @wraps(verb)
    def with_options(**values: Any) -> ExitT:
        chosen = {name: values.pop(name) for name in options}
        return verb(**values, **{READING: long_documents_of(**chosen)})

    shown = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    with_options.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    return with_options


def long_documents_of(
    long_documents: Mode = "truncate",
    max_tokens_per_doc: MaxTokensPerDoc = None,
    max_chunks: MaxChunks = None,
    overlap: Overlap = None,
    title_tokens: TitleTokens = None,
    combine: Combine = None,
) -> LongDocuments:
    """The setting that the options ask for.

    Raises:
        DataError: An option without effect is given, or a value does not exist.
    """
    from hfcompress.recipe import LongDocuments

    chunking = {"max_chunks": max_chunks, "overlap": overlap, "title_tokens": title_tokens, "combine": combine}
    given = {name: value for name, value in chunking.items() if value is not None}
    for option, value, known in (
        ("--long-documents", long_documents, ("truncate", "chunk")),
        ("--combine", combine or "max", ("max", "mean", "first")),
    ):
        if value not in known:
            raise DataError(f"{option} has no such value", value=value, expected=" or ".join(known), remedy="use one")
    if long_documents == "truncate" and given:
        name = next(iter(given))
        raise DataError(
            f"--{name.replace('_', '-')} has no effect on truncated documents",
            value=given[name],
            expected="--long-documents chunk with it",
            remedy="add --long-documents chunk, or leave it out",
        )
    return LongDocuments.model_validate({"mode": long_documents, "max_tokens_per_doc": max_tokens_per_doc, **given})
