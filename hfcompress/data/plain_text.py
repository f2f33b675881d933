"""Plain text files as documents, and the draw from a collection that is too large."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from hfcompress.data.document import Document
from hfcompress.data.lines import open_text
from hfcompress.data.ranking import stable_hash
from hfcompress.data.values import mend_texts
from hfcompress.errors import DataError

TEXT_SUFFIXES = (".txt", ".txt.gz")
MAX_DOCUMENTS = 50_000  # of a file: enough for many lists, and indexed in seconds
MAX_PARAGRAPH_LINES = 50  # longer blocks are lists of documents with a stray blank line


def is_text_file(name: str) -> bool:
    """Whether a name is that of a plain text file."""
    return name.lower().endswith(TEXT_SUFFIXES)


def read_documents(path: Path) -> dict[str, Document]:
    """Read a plain text file in UTF-8, which may be gzipped.

    Without blank lines between its lines, each line is a document. Otherwise each paragraph between blank lines is one,
    but each line where there are more than `MAX_PARAGRAPH_LINES`. Documents are named by their number in the file, from
    1. Of more than `MAX_DOCUMENTS` those are drawn that `first_documents` draws.

    Raises:
        DataError: The file cannot be read or has no text.
    """
    with open_text(path, "plain text") as stream:
        separated = _has_paragraphs(stream)
    with open_text(path, "plain text") as stream:
        texts = _paragraphs(stream) if separated else (line.strip() for line in stream if line.strip())
        corpus = first_documents((str(number), Document("", text)) for number, text in enumerate(texts, 1))
    if not corpus:
        raise DataError(
            f"The text file {path} is empty",
            expected="a document on each line, or paragraphs between blank lines",
            remedy="check the file",
        )
    return mend_texts(path.name, {}, corpus)[1]


def first_documents(documents: Iterable[tuple[str, Document]], limit: int = MAX_DOCUMENTS) -> dict[str, Document]:
    """Keep at most `limit` documents, the first by the SHA-1 of their id, which is a random draw.

    Args:
        documents: Ids and documents; a generator keeps only `limit` of them in memory.
        limit: Maximum number of documents.
    """
    return dict(heapq.nsmallest(limit, documents, key=lambda each: stable_hash(each[0])))


def _has_paragraphs(lines: Iterable[str]) -> bool:
    """Whether a blank line stands between two lines with text."""
    filled = [key for key, _ in groupby(lines, key=lambda line: bool(line.strip()))]
    return filled.count(True) > 1


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    for filled, block in groupby(lines, key=lambda line: bool(line.strip())):
        texts = [line.strip() for line in block]
        if filled and len(texts) > MAX_PARAGRAPH_LINES:
            yield from texts
        elif filled:
            yield " ".join(texts)
