"""Prompts of sentence-transformers: texts that a cross-encoder reads before the query of each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import BatchEncoding

_ATTRIBUTE = "query_prompts"  # of a tokenizer, which all code that encodes pairs has


@dataclass(frozen=True)
class Prompts:
    """The prompts of a cross-encoder, as `config_sentence_transformers.json` has them.

    Attributes:
        texts: Prompts by name.
        default: Name of the prompt that is prepended to each query; None for no prompt.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None

    @property
    def text(self) -> str:
        """The text that is prepended to each query; empty for none."""
        return "" if self.default is None else self.texts[self.default]


def prompts_of(tokenizer: Any) -> Prompts:
    """The prompts of the model whose tokenizer this is; none for a tokenizer that hfcompress has not loaded."""
    return getattr(tokenizer, _ATTRIBUTE, Prompts())


def set_prompts(tokenizer: Any, prompts: Prompts) -> None:
    """Make a tokenizer prepend the default prompt in `encode_pairs`, and `save_checkpoint` save all prompts."""
    setattr(tokenizer, _ATTRIBUTE, prompts)


def encode_pairs(tokenizer: Any, queries: Sequence[str], documents: Sequence[str], **settings: Any) -> BatchEncoding:
    """Encode pairs of query and document, with the default prompt before each query, as sentence-transformers does.

    Args:
        tokenizer: Tokenizer of the model.
        queries: The query of each pair.
        documents: The document of each pair.
        **settings: Settings of the tokenizer's call, e.g. `truncation`.
    """
    prompt = prompts_of(tokenizer).text
    return tokenizer([prompt + query for query in queries], list(documents), **settings)
