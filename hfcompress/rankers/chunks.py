"""Documents cut into chunks that fit beside the query, at borders of sentences, words or tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from hfcompress.data.sentences import sentence_starts, word_starts

Combine = Literal["max", "mean", "first"]

TOKEN, WORD, SENTENCE = 0, 1, 2  # what begins with a token
QUERY_SHARE = 0.75  # of the input: a query keeps its tokens up to here, and chunks have the rest
SENTENCE_WINDOW, WORD_WINDOW = 0.5, 0.125  # parts of a chunk, at its end, in which a border is looked for
FULL = 0.5  # of a chunk: a shorter one at the end of a document begins earlier


def borders(text: str, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """What begins with each token of a text: `SENTENCE`, `WORD`, or `TOKEN` for what is neither.

    Args:
        text: The text.
        offsets: Begin and end of each token in the text. The white space before a token may belong to it.

    Returns:
        Shape `(tokens,)`, int32.
    """
    ends = np.array([end for _, end in offsets], dtype=np.int64)
    found = np.full(len(ends), TOKEN, dtype=np.int32)
    for level, starts in ((WORD, word_starts(text)), (SENTENCE, sentence_starts(text))):
        begun = np.searchsorted(np.array(starts, dtype=np.int64), ends, side="left")  # of them, up to each token
        found[np.diff(begun, prepend=0) > 0] = level
    return found


def query_room(room: int) -> int:
    """Tokens that a query keeps at most of `room` tokens for query and chunk."""
    return max(1, int(QUERY_SHARE * room))


def shortened_query(ids: np.ndarray, size: int) -> np.ndarray:
    """The first and the last tokens of a query that is longer than `size`; one that fits is unchanged.

    What is asked stands at the beginning of some long queries and at the end of others (head and tail tokens: Sun et
    al., How to Fine-Tune BERT for Text Classification, 2019, section 5.3.1).
    """
    if len(ids) <= size:
        return ids
    tail = size // 2
    return np.concatenate((ids[: size - tail], ids[len(ids) - tail :]))


def title_size(levels: np.ndarray, most: int) -> int:
    """Tokens of the title of a document: of its first line or sentence, at most `most`."""
    ends = np.flatnonzero(levels[1:most] >= SENTENCE)
    return 1 + int(ends[0]) if len(ends) else min(most, len(levels))


def chunk_spans(levels: np.ndarray, size: int, overlap: int) -> list[tuple[int, int]]:
    """Cut a document into chunks.

    A chunk ends before the last sentence that begins in its second half, otherwise before the last word that begins in
    its last eighth, otherwise at a token. The last chunk begins earlier where it would be shorter than half a chunk.

    Args:
        levels: What begins with each token, as from `borders`.
        size: Tokens of a chunk at most.
        overlap: Tokens that a chunk repeats of the one before; at most half of that.

    Returns:
        Begin and end of each chunk, at least one.
    """
    tokens, spans, start = len(levels), [], 0
    while tokens - start > size:
        end = _cut(levels, start, size)
        spans.append((start, end))
        start = _word_before(levels, end, min(overlap, (end - start) // 2))
    if spans and tokens - start < FULL * size:
        start = _border_behind(levels, tokens - size)
    spans.append((start, tokens))
    return spans


def _cut(levels: np.ndarray, start: int, size: int) -> int:
    """Where the chunk that begins at `start` ends."""
    end = start + size
    for level, window in ((SENTENCE, SENTENCE_WINDOW), (WORD, WORD_WINDOW)):
        first = end - int(window * size)
        found = np.flatnonzero(levels[first : end + 1] >= level)
        if len(found):
            return first + int(found[-1])
    return end


def _word_before(levels: np.ndarray, end: int, overlap: int) -> int:
    """Where a chunk begins that repeats up to `overlap` tokens before `end`: at a word, if one begins there."""
    if not overlap:
        return end
    found = np.flatnonzero(levels[end - overlap : end] >= WORD)
    return end - overlap + int(found[0]) if len(found) else end - overlap


def _border_behind(levels: np.ndarray, first: int) -> int:
    """Where the last chunk begins, from `first` on: at the next sentence or word in the windows of `_cut`."""
    size = len(levels) - first
    for level, window in ((SENTENCE, SENTENCE_WINDOW), (WORD, WORD_WINDOW)):
        found = np.flatnonzero(levels[first : first + int(window * size) + 1] >= level)
        if len(found):
            return first + int(found[0])
    return first


def combined(logits: np.ndarray, chunks: Sequence[int], how: Combine) -> np.ndarray:
    """Logits of pairs from those of their chunks.

    Args:
        logits: Shape `(inputs,)`; those of a pair are consecutive.
        chunks: Number of inputs of each pair, at least one.
        how: Maximum (MaxP of Dai and Callan, 2019), mean, or first.

    Returns:
        Shape `(pairs,)`, of the same type.
    """
    if not len(chunks):
        return logits[:0]
    starts = np.concatenate(([0], np.cumsum(chunks)[:-1]))
    if how == "first":
        return logits[starts]
    if how == "max":
        return np.maximum.reduceat(logits, starts)
    return (np.add.reduceat(logits, starts) / np.asarray(chunks)).astype(logits.dtype)
