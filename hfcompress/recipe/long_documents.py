"""Setting of documents that are longer than the input of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from hfcompress.recipe.base import Positive, Strict, invalid

CHUNK_SETTINGS = ("max_chunks", "overlap", "title_tokens", "combine")


class LongDocuments(Strict):
    """How rankers read documents that do not fit into one input.

    A recipe may also name the mode alone: `long_documents: chunk`.

    Attributes:
        mode: `truncate` removes tokens of the longer text until both fit, so that a query keeps its tokens up to half
            of the input. `chunk` reads the whole document in several inputs, cut at sentence borders where there are
            some, each behind the whole query. A query keeps its tokens up to three quarters of the input; of a longer
            one the middle is left out.
        max_tokens_per_doc: Tokens of a document that are read at most; the whole document by default.
        max_chunks: Inputs of a document at most. Of more chunks the first, the last and evenly spaced ones are read.
        overlap: Tokens that a chunk repeats of the one before, at most half of a chunk.
        title_tokens: Tokens of the document's title, its first line or sentence, that every chunk begins with; of a
            longer one the first, and at most half of a chunk. 0 leaves the title in the first chunk only.
        combine: Score of the document: the `max` or `mean` of the logits of its chunks, or the `first` of them, which
            alone is then computed.
    """

    mode: Literal["truncate", "chunk"] = "truncate"
    max_tokens_per_doc: Positive | None = None
    max_chunks: Positive = 16
    overlap: Annotated[int, Field(ge=0)] = 16
    title_tokens: Annotated[int, Field(ge=0)] = 32
    combine: Literal["max", "mean", "first"] = "max"

    @model_validator(mode="before")
    @classmethod
    def _mode_alone(cls, settings: Any) -> Any:
        return {"mode": settings} if isinstance(settings, str) else settings

    @model_validator(mode="after")
    def _only_with_chunks(self) -> LongDocuments:
        changed = [name for name in CHUNK_SETTINGS if getattr(self, name) != type(self).model_fields[name].default]
        if self.mode == "truncate" and changed:
            raise ValueError(f"{changed[0]} has no effect on truncated documents: set mode to chunk, or leave it out")
        return self

    @property
    def chunks(self) -> bool:
        """Whether documents are read in chunks."""
        return self.mode == "chunk"

    @property
    def is_default(self) -> bool:
        """Whether pairs are truncated as their tokenizer does it."""
        return self == TRUNCATED

    def __str__(self) -> str:
        """The setting in words, for logs and the card."""
        limit = "" if self.max_tokens_per_doc is None else f" of their first {self.max_tokens_per_doc:,} tokens"
        if not self.chunks:
            return f"truncated{limit}"
        title = f", each behind up to {self.title_tokens} tokens of the title" if self.title_tokens else ""
        return (
            f"read in at most {self.max_chunks} chunks{limit} with an overlap of {self.overlap} tokens{title}, "
            f"combined by {self.combine}"
        )


TRUNCATED = LongDocuments()  # as the tokenizer truncates pairs


def long_documents_of(settings: LongDocuments | Mapping[str, Any] | str) -> LongDocuments:
    """The setting from its mode, or from a mapping of its attributes; a `LongDocuments` as it is.

    Raises:
        RecipeError: There is no such mode or attribute, or a value is not valid.
    """
    try:
        return LongDocuments.model_validate(settings)
    except ValidationError as error:
        raise invalid("The setting of long documents cannot be used", error) from error
