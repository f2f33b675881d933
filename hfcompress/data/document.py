"""A document of a corpus."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A document as the reranker reads it: an optional title and a text."""

    title: str
    text: str

    @property
    def content(self) -> str:
        """Title and text in one string, as BEIR's readers join them."""
        return f"{self.title} {self.text}" if self.title else self.text
