"""Chunks cover a document, end at borders, and are combined per pair."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from hfcompress.rankers.chunks import (
    SENTENCE,
    TOKEN,
    WORD,
    borders,
    chunk_spans,
    combined,
    query_room,
    shortened_query,
)


@pytest.mark.parametrize("overlap", [0, 3, 40])
@pytest.mark.parametrize("size", [1, 2, 7, 30])
def test_chunks_fit_and_cover_every_token(size: int, overlap: int) -> None:
    rng = np.random.default_rng(size)
    for tokens in range(90):
        levels = rng.choice([TOKEN, WORD, SENTENCE], size=tokens, p=[0.6, 0.3, 0.1])
        spans = chunk_spans(levels, size, overlap)
        assert spans[0][0] == 0 and spans[-1][1] == tokens
        assert all(0 < end - begin <= size for begin, end in spans) or tokens == 0
        read = {token for begin, end in spans for token in range(begin, end)}
        assert read == set(range(tokens))
        assert all(one[0] < two[0] <= one[1] <= two[1] for one, two in pairwise(spans))


def test_a_chunk_ends_before_a_sentence_or_else_a_word() -> None:
    levels = np.full(24, TOKEN)
    levels[[3, 7]] = SENTENCE
    levels[[8, 9]] = WORD
    assert chunk_spans(levels, 10, 0)[0] == (0, 7)
    levels[[3, 7]] = TOKEN
    assert chunk_spans(levels, 10, 0)[0] == (0, 9)  # no border in the last eighth but this one
    levels[9] = TOKEN
    assert chunk_spans(levels, 10, 0)[0] == (0, 10)


def test_chunks_overlap_and_the_last_one_is_not_short() -> None:
    levels = np.full(25, TOKEN)
    assert chunk_spans(levels, 10, 2) == [(0, 10), (8, 18), (16, 25)]
    assert chunk_spans(levels, 10, 0) == [(0, 10), (10, 20), (20, 25)]
    assert chunk_spans(levels[:22], 10, 0) == [(0, 10), (10, 20), (12, 22)]


def test_borders_do_not_depend_on_who_has_the_white_space() -> None:
    text = "One two. Three"
    tight = [(0, 3), (4, 7), (7, 8), (9, 12), (12, 14)]
    wide = [(0, 3), (3, 7), (7, 8), (8, 12), (12, 14)]
    assert borders(text, tight).tolist() == borders(text, wide).tolist() == [TOKEN, WORD, TOKEN, SENTENCE, TOKEN]
    assert borders("", []).tolist() == []


def test_a_long_query_keeps_both_ends() -> None:
    query = np.arange(10)
    assert shortened_query(query, 10) is query
    assert shortened_query(query, 5).tolist() == [0, 1, 2, 8, 9]
    assert query_room(100) == 75 and query_room(1) == 1


@pytest.mark.parametrize(("how", "expected"), [("max", [3.0, 5.0, -1.0]), ("mean", [2.0, 5.0, -2.0])])
def test_scores_of_chunks_are_combined(how: str, expected: list[float]) -> None:
    found = combined(np.array([1, 3, 5, -3, -1, -2], dtype=np.float32), [2, 1, 3], how)
    assert found.dtype == np.float32 and found.tolist() == expected


def test_the_first_chunk_counts_alone() -> None:
    assert combined(np.array([1, 3, 5], dtype=np.float32), [2, 1], "first").tolist() == [1, 5]
    assert combined(np.empty(0, dtype=np.float32), [], "max").tolist() == []
