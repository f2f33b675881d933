"""Measure rankers side by side: quality from the scores, speed from the clock, in turns."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import quantile_test

from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.metrics import Run, run_from_scores
from hfcompress.evaluation.schema import Interval
from hfcompress.evaluation.speed import Latency, SingleThread
from hfcompress.progress import progress_bar
from hfcompress.rankers.base import BatchedRanker, Pair

WARM_UP_QUERIES = 2
WARM_UP_PAIRS = 2  # on one thread
SINGLE_THREAD_SECONDS = 20.0
IDLE_SECONDS = 0.05  # before each timed call: threads of the runtime that ran before wait in a busy loop for a while
IN_A_ROW = 5  # single queries of one ranker, before the next one's turn; on one thread each query is a turn
TOKENIZER_THREADS = "TOKENIZERS_PARALLELISM"


@dataclass
class Measurement:
    """What was measured of one ranker.

    Attributes:
        scores: Raw scores, `{query id: [score of each candidate]}`.
        round_seconds: Wall time of each round of bulk scoring, tokenization counted.
        round_documents: Documents scored in each round.
        query_seconds: Wall time of single queries.
        query_documents: Documents of these queries.
    """

    scores: dict[str, list[float]] = field(default_factory=dict)
    round_seconds: list[float] = field(default_factory=list)
    round_documents: list[int] = field(default_factory=list)
    query_seconds: list[float] = field(default_factory=list)
    query_documents: list[int] = field(default_factory=list)

    def latency(self, ranker: BatchedRanker) -> Latency:
        """Speed in the form of the report."""
        milliseconds = np.array(self.query_seconds) * 1000
        return Latency(
            docs_per_second=statistics.median(
                documents / seconds for documents, seconds in zip(self.round_documents, self.round_seconds, strict=True)
            ),
            p50_ms=float(np.percentile(milliseconds, 50)),
            p95_ms=float(np.percentile(milliseconds, 95)),
            threads=ranker.threads,
            batch=ranker.batch_tokens,
            candidates=float(np.mean(self.query_documents)),
            p99_ms=float(np.percentile(milliseconds, 99)),
            queries=len(self.query_seconds),
        )

    def speedup_over(self, other: Measurement) -> float:
        """Median over the rounds of the other's time divided by ours, on the same documents."""
        return statistics.median(self._ratios(other))

    def speedup_interval(self, other: Measurement, confidence: float) -> Interval | None:
        """Interval of that median, from the order of the ratios alone: the sign test's, exact for any distribution.

        Ratios of times have heavy tails and rounds are few, so that neither Student's t nor a bootstrap would keep its
        level; this one does (Conover, Practical Nonparametric Statistics, 1999, section 3.2), and is wider.

        Returns:
            None where there are too few rounds for this confidence: fewer than 6 for 0.95.
        """
        found = quantile_test(self._ratios(other), p=0.5).confidence_interval(confidence)
        if np.isnan(found.low) or np.isnan(found.high):
            return None
        return Interval(low=float(found.low), high=float(found.high), confidence=confidence)

    def _ratios(self, other: Measurement) -> list[float]:
        return [theirs / ours for ours, theirs in zip(self.round_seconds, other.round_seconds, strict=True)]

    def run(self, candidates: dict[str, list[str]]) -> Run:
        """The scores as a run."""
        return run_from_scores(candidates, self.scores)


def measure(
    rankers: Sequence[BatchedRanker],
    data: RankingData,
    split: str,
    rounds: int,
    latency_queries: int,
    progress: bool = True,
    texts: Sequence[RankingData] | None = None,
) -> list[Measurement]:
    """Score all candidates of a split with every ranker, and time single queries.

    The queries are dealt into rounds, and all rankers score a round one after the other before the next begins, so
    that the machine's drift falls on all alike. Each begins on an idle machine, as a server's would that has one
    runtime. Quality and bulk speed come from the same pass. Single queries are timed in turns too; see `_one_by_one`.

    Args:
        rankers: What to measure; the teacher first.
        data: The data.
        split: The split.
        rounds: Number of rounds; fewer where there are fewer queries.
        latency_queries: Queries timed one by one.
        progress: Show a progress bar.
        texts: The data as each ranker reads it, which differ in nothing but `score_text`; where left out, all read
            `data`.

    Returns:
        One measurement for each ranker, in their order.
    """
    candidates = {query: documents for query, documents in data.split(split).candidates.items() if documents}
    queries = list(candidates)
    read = texts or [data] * len(rankers)
    made = {id(each): {query: each.pairs(query, listed) for query, listed in candidates.items()} for each in read}
    pairs_of = [made[id(each)] for each in read]
    results = [Measurement() for _ in rankers]
    for ranker, pairs in zip(rankers, pairs_of, strict=True):
        ranker.score([pair for query in queries[:WARM_UP_QUERIES] for pair in pairs[query]])
    parts = [part for part in (queries[start::rounds] for start in range(rounds)) if part]
    timed = queries[:latency_queries]
    total = len(rankers) * sum(len(candidates[query]) for query in [*queries, *timed])
    with progress_bar(total=total, desc="measuring", unit="doc", disable=not progress, leave=False) as bar:
        for part in parts:
            for ranker, result, pairs in zip(rankers, results, pairs_of, strict=True):
                batch = [pair for query in part for pair in pairs[query]]
                scores, seconds = _timed(ranker, batch)
                result.round_seconds.append(seconds)
                result.round_documents.append(len(batch))
                flat = iter(scores.tolist())
                result.scores.update({query: [next(flat) for _ in pairs[query]] for query in part})
                bar.update(len(batch))
        lists = [[pairs[query] for query in timed] for pairs in pairs_of]
        _one_by_one(rankers, lists, results, IN_A_ROW, scored=bar.update)
    return results


def measure_single_thread(
    rankers: Sequence[BatchedRanker], lists: Sequence[Sequence[Sequence[Pair]]], confidence: float
) -> list[SingleThread]:
    """Time rankers of one thread on single queries, in turns; the tokenizer gets one thread as well.

    Args:
        rankers: What to measure, each with one thread; the teacher first.
        lists: For each ranker the pairs of the same queries, one list a query, as it reads them. No new turn is begun
            after `SINGLE_THREAD_SECONDS`.
        confidence: Of the interval of the speed-up.

    Returns:
        One measurement for each ranker, in their order.
    """
    results = [Measurement() for _ in rankers]
    with _one_tokenizer_thread():
        for ranker, own in zip(rankers, lists, strict=True):
            ranker.score(own[0][:WARM_UP_PAIRS])
        _one_by_one(rankers, lists, results, 1, SINGLE_THREAD_SECONDS)
    for result in results:  # a query is a round here
        result.round_seconds, result.round_documents = result.query_seconds, result.query_documents
    return [
        SingleThread(
            latency=result.latency(ranker),
            speedup=1.0 if result is results[0] else result.speedup_over(results[0]),
            speedup_interval=None if result is results[0] else result.speedup_interval(results[0], confidence),
        )
        for ranker, result in zip(rankers, results, strict=True)
    ]


def _one_by_one(
    rankers: Sequence[BatchedRanker],
    lists: Sequence[Sequence[Sequence[Pair]]],
    results: Sequence[Measurement],
    in_a_row: int,
    seconds: float = math.inf,
    scored: Callable[[int], object] = lambda documents: None,
) -> None:
    """Time single queries, each asked when the one before it is answered, as MLPerf Inference's single stream does.

    The rankers take turns. The first query of a turn is scored once before and not counted:
    threads have to wake up, and caches hold what the other rankers left there, which a server does not meet that is in
    use and has one model.

    Args:
        rankers: What to time.
        lists: For each ranker the pairs of the same queries.
        results: Where the times go, one for each ranker.
        in_a_row: Queries of a turn.
        seconds: No new turn is begun after them.
        scored: Called with the number of documents of each query that was timed.
    """
    begun = time.perf_counter()
    for start in range(0, len(lists[0]), in_a_row):
        for ranker, result, own in zip(rankers, results, lists, strict=True):
            time.sleep(IDLE_SECONDS)
            ranker.score(own[start])
            for pairs in own[start : start + in_a_row]:
                result.query_seconds.append(_clocked(ranker, pairs)[1])
                result.query_documents.append(len(pairs))
                scored(len(pairs))
        if time.perf_counter() - begun > seconds:
            break


def _timed(ranker: BatchedRanker, pairs: Sequence[Pair]) -> tuple[np.ndarray, float]:
    """Scores and the wall time that they took, begun when no other ranker's threads are busy any more."""
    time.sleep(IDLE_SECONDS)
    return _clocked(ranker, pairs)


def _clocked(ranker: BatchedRanker, pairs: Sequence[Pair]) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    scores = ranker.score(pairs)
    return scores, time.perf_counter() - start


@contextmanager
def _one_tokenizer_thread() -> Iterator[None]:
    before = os.environ.get(TOKENIZER_THREADS)
    os.environ[TOKENIZER_THREADS] = "false"  # the tokenizers library reads it at every call
    try:
        yield
    finally:
        if before is None:
            del os.environ[TOKENIZER_THREADS]
        else:
            os.environ[TOKENIZER_THREADS] = before
