"""Chunks are few at a time, in their order, and scored as `Ranker.score` does."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from hfcompress.errors import DataError
from hfcompress.rankers.base import BatchedRanker, Encoded, Pair
from hfcompress.scoring import chunks as chunks_module
from hfcompress.scoring.chunks import Chunk, Row, chunks_of
from hfcompress.scoring.engine import score_chunks


def fault(number: int, value: object, expected: str) -> DataError:
    return DataError(f"line {number}", value=value, expected=expected, remedy="none")


def test_few_chunks_are_in_memory(ranker: BatchedRanker, pairs: list[Pair]) -> None:
    made = 0

    def endless() -> Iterator[Chunk]:
        nonlocal made
        while True:
            made += 1
            yield Chunk(pairs[made % 20 : made % 20 + 3], None, [1, 2, 3], position=made)

    threads = threading.active_count()
    scored = score_chunks(ranker, endless(), fault)
    for number in range(1, 200):
        chunk, scores, faults = next(scored)
        assert chunk.position == number and made <= number + 3
        if number < 20:
            assert np.array_equal(scores, ranker.score(chunk.pairs)) and not faults
    scored.close()
    assert threading.active_count() == threads


@pytest.mark.parametrize("on_cpu", [True, False])
def test_the_reader_tokenizes_for_an_accelerator_only(
    ranker: BatchedRanker, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch, on_cpu: bool
) -> None:
    encoding, encode = set[int](), ranker.encode

    def watched(texts: Sequence[Pair]) -> Encoded:
        encoding.add(threading.get_ident())
        return encode(texts)

    assert ranker.on_cpu
    monkeypatch.setattr(type(ranker), "on_cpu", on_cpu)
    monkeypatch.setattr(ranker, "encode", watched)
    (scored,) = score_chunks(ranker, iter([Chunk(pairs[:5], None, [1, 2, 3, 4, 5])]), fault)
    assert (encoding == {threading.get_ident()}) == on_cpu and len(encoding) == 1
    monkeypatch.undo()
    assert np.array_equal(scored[1], ranker.score(pairs[:5]))


def test_errors_come_behind_the_chunks_before_them(ranker: BatchedRanker, pairs: list[Pair]) -> None:
    def broken() -> Iterator[Chunk]:
        yield Chunk(pairs[:2], None, [1, 2])
        raise fault(3, "x", "y")

    scored = score_chunks(ranker, broken(), fault)
    assert len(next(scored)[1]) == 2
    with pytest.raises(DataError, match="line 3"):
        next(scored)


def rows(count: int, length: int = 4) -> Iterator[Row]:
    return (Row(number, number, "q" * length, "d" * length) for number in range(1, count + 1))


def test_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(chunk.pairs) for chunk in chunks_of(rows(10), 4)] == [4, 4, 2]
    monkeypatch.setattr(chunks_module, "MOST_CHARACTERS", 20)
    assert [chunk.numbers for chunk in chunks_of(rows(5), 100)] == [[1, 2, 3], [4, 5]]
    grouped = [row._replace(last=row.number % 5 == 0) for row in rows(10)]
    assert [len(chunk.pairs) for chunk in chunks_of(grouped, 3)] == [5, 5]
    first, second, third = rows(3)
    paused = list(chunks_of([None, first, None, fault(2, "", ""), None, third], 10))
    assert [(chunk.content, len(chunk.faults)) for chunk in paused] == [([1], 0), ([], 1), ([3], 0)]
    many = list(chunks_of((fault(number, "", "") for number in range(10)), 4))  # no row that can be scored
    assert [len(chunk.faults) for chunk in many] == [4, 4, 2]
    strict = chunks_of([first, second, fault(3, "", "")], 9, True)
    assert next(strict).numbers == [1, 2]
    with pytest.raises(DataError, match="line 3"):
        next(strict)
