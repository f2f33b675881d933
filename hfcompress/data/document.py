"""A document of a corpus, and when two texts count as the same."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Document:
    """A document as the reranker reads it: an optional title and a text."""

    title: str
    text: str

    @property
    def content(self) -> str:
        """Title and text in one string, as BEIR's readers join them."""
        return f"{self.title} {self.text}" if self.title else self.text

    @cached_property
    def text_key(self) -> str:
        """The `text_key` of `content`."""
        return text_key(self.content)


def text_key(text: str) -> str:
    """What texts that count as the same have in common: compatibility form, without case and repeated white space.

    Full-width and other compatibility characters, composed and decomposed letters, and upper and lower case are the
    same: Unicode's compatibility caseless match (The Unicode Standard, D146).
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())
