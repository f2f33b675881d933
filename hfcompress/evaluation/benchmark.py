"""Benchmark rankers side by side: score the same queries in turns, and measure throughput and latency."""

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

from hfcompress.data.ranking import RankingData, first_queries
from hfcompress.evaluation.metrics import Run, run_from_scores
from hfcompress.rankers.base import BatchedRanker, Pair
from hfcompress.report.schema import Interval
from hfcompress.report.speed import Latency, SingleThread
from hfcompress.utils.progress import progress_bar

WARM_UP_QUERIES = 2
WARM_UP_PAIRS = 2  # with one thread
SINGLE_THREAD_SECONDS = 20.0
IDLE_SECONDS = 0.05  # before each timed call: idle threads of other runtimes first spin in a busy loop
QUERIES_PER_TURN = 5  # of the latency benchmark; 1 with one thread
TOKENIZER_THREADS = "TOKENIZERS_PARALLELISM"


@dataclass
class BenchmarkResult:
    """Scores and times of one ranker.

    Attributes:
        scores: Raw scores, `{query id: [score of each candidate]}`.
        round_seconds: Wall time of each round of bulk scoring, tokenization included.
        round_documents: Number of documents of each round.
        query_seconds: Wall time of single queries.
        query_documents: Number of documents of these queries.
    """

    scores: dict[str, list[float]] = field(default_factory=dict)
    round_seconds: list[float] = field(default_factory=list)
    round_documents: list[int] = field(default_factory=list)
    query_seconds: list[float] = field(default_factory=list)
    query_documents: list[int] = field(default_factory=list)

    def latency(self, ranker: BatchedRanker) -> Latency:
        """Throughput and latency, for the report."""
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
            bulk_queries=len(self.scores) or None,
        )

    def speedup_over(self, other: BenchmarkResult) -> float:
        """Median over the rounds of the other's time divided by ours, for the same documents."""
        return statistics.median(self._ratios(other))

    def speedup_interval(self, other: BenchmarkResult, confidence: float) -> Interval | None:
        """Distribution-free interval of the median ratio, from the sign test.

        Ratios of times have heavy tails and there are few rounds, so intervals by Student's t or a bootstrap would not
        keep their level. This one does, and is wider (Conover, Practical Nonparametric Statistics, 1999, section 3.2).

        Returns:
            None with too few rounds for this confidence: fewer than 6 for 0.95.
        """
        found = quantile_test(self._ratios(other), p=0.5).confidence_interval(confidence)
        if np.isnan(found.low) or np.isnan(found.high):
            return None
        return Interval(low=float(found.low), high=float(found.high), confidence=confidence)

    def _ratios(self, other: BenchmarkResult) -> list[float]:
        return [theirs / ours for ours, theirs in zip(self.round_seconds, other.round_seconds, strict=True)]

    def run(self, candidates: dict[str, list[str]]) -> Run:
        """The scores as a run."""
        return run_from_scores(candidates, self.scores)


def benchmark(
    rankers: Sequence[BatchedRanker],
    data: RankingData,
    split: str,
    *,
    rounds: int,
    latency_queries: int,
    progress: bool = True,
    texts: Sequence[RankingData] | None = None,
    most_queries: int | None = None,
) -> list[BenchmarkResult]:
    """Score the candidates of a split's queries, or of a sample of these, with every ranker, and time single queries.

    The queries are divided into rounds. All rankers score a round one after the other before the next round begins, so
    that drift of the machine affects all alike. Each call begins on an idle machine, as on a server with a single
    runtime. Scores and throughput come from the same pass. Single queries are timed in turns too; see `_time_queries`.

    Args:
        rankers: The rankers, the teacher first.
        data: The data.
        split: The split.
        rounds: Number of rounds, at most the number of queries.
        latency_queries: Number of queries timed one by one.
        progress: Show a progress bar.
        texts: The data as each ranker reads it, which may differ in `score_text` only; by default `data` for all.
        most_queries: Size of the sample, which is drawn by a hash of the ids; None for all queries.

    Returns:
        One result for each ranker, in their order.
    """
    listed = {query: documents for query, documents in data.split(split).candidates.items() if documents}
    queries = list(listed)
    if most_queries is not None and most_queries < len(queries):
        queries = first_queries(queries, most_queries)
    candidates = {query: listed[query] for query in queries}
    texts = texts or [data] * len(rankers)
    pairs_by_text = {
        id(text): {query: text.pairs(query, listed) for query, listed in candidates.items()} for text in texts
    }
    pairs_of = [pairs_by_text[id(text)] for text in texts]
    results = [BenchmarkResult() for _ in rankers]
    for ranker, pairs in zip(rankers, pairs_of, strict=True):
        ranker.score([pair for query in queries[:WARM_UP_QUERIES] for pair in pairs[query]])
    parts = [part for part in (queries[start::rounds] for start in range(rounds)) if part]
    timed = queries[:latency_queries]
    total = len(rankers) * sum(len(candidates[query]) for query in [*queries, *timed])
    with progress_bar(total=total, desc="speed", unit="doc", disable=not progress, leave=False) as bar:
        for part in parts:
            for ranker, result, pairs in zip(rankers, results, pairs_of, strict=True):
                batch = [pair for query in part for pair in pairs[query]]
                time.sleep(IDLE_SECONDS)
                scores, seconds = _timed(ranker, batch)
                result.round_seconds.append(seconds)
                result.round_documents.append(len(batch))
                flat = iter(scores.tolist())
                result.scores.update({query: [next(flat) for _ in pairs[query]] for query in part})
                bar.update(len(batch))
        lists = [[pairs[query] for query in timed] for pairs in pairs_of]
        _time_queries(rankers, lists, results, per_turn=QUERIES_PER_TURN, scored=bar.update)
    return results


def benchmark_single_thread(
    rankers: Sequence[BatchedRanker], lists: Sequence[Sequence[Sequence[Pair]]], confidence: float
) -> list[SingleThread]:
    """Time single queries with one thread for each ranker and for the tokenizer, in turns.

    Args:
        rankers: The rankers, each with one thread, the teacher first.
        lists: For each ranker the pairs of the same queries, one list per query. No turn begins after
            `SINGLE_THREAD_SECONDS`.
        confidence: Confidence level of the speed-up's interval.

    Returns:
        One result for each ranker, in their order.
    """
    results = [BenchmarkResult() for _ in rankers]
    with _one_tokenizer_thread():
        for ranker, own in zip(rankers, lists, strict=True):
            ranker.score(own[0][:WARM_UP_PAIRS])
        _time_queries(rankers, lists, results, per_turn=1, seconds=SINGLE_THREAD_SECONDS)
    for result in results:  # each query counts as a round
        result.round_seconds, result.round_documents = result.query_seconds, result.query_documents
    return [
        SingleThread(
            latency=result.latency(ranker),
            speedup=1.0 if result is results[0] else result.speedup_over(results[0]),
            speedup_interval=None if result is results[0] else result.speedup_interval(results[0], confidence),
        )
        for ranker, result in zip(rankers, results, strict=True)
    ]


def _time_queries(
    rankers: Sequence[BatchedRanker],
    lists: Sequence[Sequence[Sequence[Pair]]],
    results: Sequence[BenchmarkResult],
    *,
    per_turn: int,
    seconds: float = math.inf,
    scored: Callable[[int], object] = lambda documents: None,
) -> None:
    """Time single queries, each started when the previous one is finished (MLPerf Inference's single stream).

    The rankers take turns. The first query of a turn is also scored once without timing: after the turns of other
    rankers, threads are asleep and caches hold foreign data, unlike on a busy server with a single model.

    Args:
        rankers: The rankers.
        lists: For each ranker the pairs of the same queries.
        results: The times are appended to these, one result for each ranker.
        per_turn: Queries of a turn.
        seconds: No turn begins after this time.
        scored: Called with the number of documents of each timed query.
    """
    started = time.perf_counter()
    for start in range(0, len(lists[0]), per_turn):
        for ranker, result, own in zip(rankers, results, lists, strict=True):
            time.sleep(IDLE_SECONDS)
            ranker.score(own[start])
            for pairs in own[start : start + per_turn]:
                result.query_seconds.append(_timed(ranker, pairs)[1])
                result.query_documents.append(len(pairs))
                scored(len(pairs))
        if time.perf_counter() - started > seconds:
            break


def _timed(ranker: BatchedRanker, pairs: Sequence[Pair]) -> tuple[np.ndarray, float]:
    """Scores, and their wall time in seconds."""
    ranker.synchronize()
    start = time.perf_counter()
    scores = ranker.score(pairs)
    ranker.synchronize()
    return scores, time.perf_counter() - start


@contextmanager
def _one_tokenizer_thread() -> Iterator[None]:
    before = os.environ.get(TOKENIZER_THREADS)
    os.environ[TOKENIZER_THREADS] = "false"  # read by tokenizers at every call
    try:
        yield
    finally:
        if before is None:
            del os.environ[TOKENIZER_THREADS]
        else:
            os.environ[TOKENIZER_THREADS] = before
