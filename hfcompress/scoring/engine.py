"""Scores of chunks: the next one is read while the model computes, and for an accelerator tokenized, too."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

import numpy as np

from hfcompress.errors import DataError
from hfcompress.rankers.base import BatchedRanker, Encoded
from hfcompress.scoring.chunks import Chunk

POLL_SECONDS = 0.1
ItemT = TypeVar("ItemT")
FaultOfRow = Callable[[int, object, str], DataError]
Scored = tuple[Chunk, list[float | None], list[DataError]]


def score_chunks(
    ranker: BatchedRanker,
    chunks: Iterator[Chunk],
    fault: FaultOfRow,
    activation: bool = False,
    stop: Callable[[], None] = lambda: None,
) -> Generator[Scored, None, None]:
    """Score chunks in their order, at most three of which are in memory.

    On a CPU, tokenizing one chunk beside the computation of another has both wait for the same cores: one after the
    other is a quarter faster on two cores (`scripts/score_memory.py`).

    Args:
        ranker: The ranker.
        chunks: The chunks, which another thread reads.
        fault: Makes the error of a row from its number, a value, and what was expected.
        activation: Apply the activation of the checkpoint; by default scores are raw logits.
        stop: Called when no more chunks are wanted, so that `chunks` does not wait any longer.

    Yields:
        Each chunk, the score of each of its pairs, or None if it is not finite, and the errors of these.
    """
    prepared = ((chunk, None if ranker.on_cpu else ranker.encode(chunk.pairs)) for chunk in chunks)
    with closing(_ahead(prepared, stop)) as ready:
        for chunk, inputs in ready:
            encoded = ranker.encode(chunk.pairs) if inputs is None else inputs
            yield chunk, *scores_of(ranker, chunk, encoded, activation, fault)


def scores_of(
    ranker: BatchedRanker, chunk: Chunk, encoded: Encoded, activation: bool, fault: FaultOfRow
) -> tuple[list[float | None], list[DataError]]:
    """Score a chunk; the scores are those of `Ranker.score` of its pairs.

    Args:
        ranker: The ranker.
        chunk: The chunk.
        encoded: Its pairs, encoded by the ranker.
        activation: As for `score_chunks`.
        fault: As for `score_chunks`.

    Returns:
        The score of each pair, or None if it is not finite, and the errors of these.
    """
    logits = ranker.score_encoded(encoded)
    values = ranker.activation(logits) if activation and len(logits) else logits
    finite = np.isfinite(values)
    if finite.all():
        return values.tolist(), []
    scores = [score if ok else None for score, ok in zip(values.tolist(), finite, strict=True)]
    faults = [
        fault(number, str(value), "a finite score of the model (in 16 bits it may overflow: --dtype float32)")
        for number, value, ok in zip(chunk.numbers, values, finite, strict=True)
        if not ok
    ]
    return scores, faults


def _ahead(items: Iterator[ItemT], stop: Callable[[], None]) -> Generator[ItemT, None, None]:
    """Yield the items of an iterator, the next of which another thread takes from it meanwhile."""
    ready: Queue[tuple[ItemT | None, BaseException | None]] = Queue(1)
    stopped = Event()

    def put(item: ItemT | None, error: BaseException | None = None) -> bool:
        while not stopped.is_set():
            try:
                ready.put((item, error), timeout=POLL_SECONDS)
                return True
            except Full:
                continue
        return False

    def work() -> None:
        try:
            if all(put(item) for item in items):
                put(None)
        except BaseException as error:  # raised again where the items are used
            put(None, error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stopped.set()
        stop()
        thread.join()
