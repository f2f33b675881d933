"""Micro-batching: pairs of several requests are scored together, in rounds of bounded size."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from bisect import insort
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hfcompress.rankers.base import Encoded
from hfcompress.serve.errors import RequestError

logger = logging.getLogger(__name__)

ROUNDS = 2  # in flight: the runtime has work while the scores of the other round are handed out
SMOOTHING = 0.2  # weight of the last round, or request, in running means
FIRST_RATE = 20_000.0  # tokens per second, until a round has been measured


class Scored(NamedTuple):
    """Scores of a request.

    Attributes:
        logits: Raw logits, shape `(pairs,)`.
        queued: Seconds until its first pair was passed to the runtime.
        computed: Seconds from then to its last score.
    """

    logits: np.ndarray
    queued: float
    computed: float


@dataclass(eq=False)
class Work:
    """A request that waits: its pairs, those that remain, and its scores until now.

    Attributes:
        encoded: Its encoded pairs.
        lengths: Tokens of each pair.
        priority: Its priority.
        future: Done when all pairs are scored.
        remaining: Indices of pairs that wait, the next one last.
        logits: Scores.
        unscored: Pairs without a score.
        due: When it would be done if it had the runtime to itself.
        arrived: When it was submitted.
        started: When its first pair was passed to the runtime.
    """

    encoded: Encoded
    lengths: np.ndarray
    priority: int
    future: asyncio.Future[None]
    remaining: list[int]
    logits: np.ndarray
    unscored: int
    due: float
    arrived: float = field(default_factory=time.perf_counter)
    started: float | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the pairs that wait."""
        return int(self.lengths[self.remaining].sum())

    def take(self, budget: int) -> tuple[list[int], int]:
        """Indices of the next pairs, at least one, and their tokens."""
        taken: list[int] = []
        tokens = 0
        while self.remaining and tokens < budget:
            index = self.remaining.pop()
            taken.append(index)
            tokens += int(self.lengths[index])
        return sorted(taken), tokens


_Round = list[tuple[Work, list[int]]]


class Batcher:
    """A queue of requests to one ranker, whose pairs are scored in rounds.

    A round starts as soon as the runtime has room for it, with what waits then; so an idle server adds no delay, and a
    busy one fills its rounds. Requests are served in the order in which they would be done if each had the runtime to
    itself: short ones that come soon after a long one pass it, also between its rounds, and those of one length are
    served in the order of their arrival. However many short ones come, a long one is passed only by those that come
    within its own time.

    Args:
        score: Scores encoded pairs; called in a thread.
        batch_tokens: Tokens of a round.
        max_wait: Seconds that a round with room waits for requests which are being tokenized.
        queue_tokens: Tokens that wait at most.
        observe: Called with the pairs and the tokens of each round.
    """

    def __init__(
        self,
        score: Callable[[Encoded], np.ndarray],
        batch_tokens: int,
        max_wait: float,
        queue_tokens: int,
        observe: Callable[[int, int], None] = lambda pairs, tokens: None,
    ):
        self.waiting_tokens = 0
        self._score = score
        self._batch_tokens, self._max_wait, self._queue_tokens = batch_tokens, max_wait, queue_tokens
        self._observe = observe
        self._queue: list[Work] = []
        self._arriving = 0
        self._changed = asyncio.Event()
        self._slots = asyncio.Semaphore(ROUNDS)
        self._rounds: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(ROUNDS, thread_name_prefix="round")
        self._rate = FIRST_RATE  # tokens per second
        self._measured = False
        self._request_tokens = 0.0  # of a request, on average
        self._finished = 0.0  # end of the last round
        self._loop_task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def start(self) -> None:
        """Start to score; called in the event loop."""
        self._loop_task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Score what waits, and stop."""
        while self._queue or self._rounds:
            await asyncio.wait(self._rounds) if self._rounds else await asyncio.sleep(0.001)
        if self._loop_task:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
        self._threads.shutdown()

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Within the block a request is prepared, for which a round with room may wait."""
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1
            self._changed.set()

    def check_room(self) -> None:
        """Check that a request has room in the queue, before it is tokenized.

        Raises:
            RequestError: What waits and what is being tokenized fill it, with the time after which it probably has.
        """
        self._check_room(self.waiting_tokens + self._arriving * self._request_tokens, 1)

    def _check_room(self, waiting: float, tokens: int) -> None:
        if waiting and waiting + tokens > self._queue_tokens:
            seconds = max(1, math.ceil(waiting / self._rate)) if self._measured else 1
            raise RequestError(
                "overloaded",
                f"Model is overloaded: {waiting:.0f} tokens wait, and {self._queue_tokens} may. Try again in "
                f"{seconds} s.",
                seconds,
            )

    def submit(self, encoded: Encoded, priority: int = 0) -> Work:
        """Put a request into the queue. `result` must follow, which also takes it out again.

        Args:
            encoded: Encoded pairs, at least one.
            priority: Requests of lower numbers come first.

        Raises:
            RequestError: The queue is full.
        """
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        tokens = int(lengths.sum())
        self._check_room(self.waiting_tokens, tokens)
        self._request_tokens = _running_mean(self._request_tokens, tokens)
        work = Work(
            encoded,
            lengths,
            priority,
            asyncio.get_running_loop().create_future(),
            # In the order of lengths, so that a round has little padding; the longest are taken first.
            np.argsort(lengths, kind="stable").tolist(),
            np.empty(len(lengths), dtype=np.float32),
            len(lengths),
            time.perf_counter() + tokens / self._rate,
        )
        self.waiting_tokens += tokens
        insort(self._queue, work, key=lambda each: (each.priority, each.due))
        self._changed.set()
        return work

    async def result(self, work: Work) -> Scored:
        """The scores of a request. If the task is cancelled, pairs that wait are not scored.

        Raises:
            RequestError: The runtime failed.
        """
        try:
            await work.future
        finally:
            if work in self._queue:
                self._queue.remove(work)
                self.waiting_tokens -= work.tokens
        started = work.started or work.arrived
        return Scored(work.logits, started - work.arrived, time.perf_counter() - started)

    async def score(self, encoded: Encoded, priority: int = 0) -> Scored:
        """`submit`, then `result`."""
        return await self.result(self.submit(encoded, priority))

    async def _run(self) -> None:
        while True:
            await self._slots.acquire()
            await self._gather()
            chosen = self._cut()
            task = asyncio.get_running_loop().create_task(self._compute(chosen))
            self._rounds.add(task)
            task.add_done_callback(self._rounds.discard)

    async def _gather(self) -> None:
        """Wait for the first request, and then for those that arrive, within the bound and while there is room."""
        while not self._queue:
            self._changed.clear()
            await self._changed.wait()
        end = time.perf_counter() + self._max_wait
        while self._arriving and self.waiting_tokens < self._batch_tokens:
            self._changed.clear()
            try:
                async with asyncio.timeout(max(0.0, end - time.perf_counter())):
                    await self._changed.wait()
            except TimeoutError:
                break
        if not self._queue:  # cancelled meanwhile
            await self._gather()

    def _cut(self) -> _Round:
        """The pairs of the next round."""
        chosen: _Round = []
        left = self._batch_tokens
        while self._queue and left > 0:
            work = self._queue[0]
            taken, tokens = work.take(left)
            left -= tokens
            self.waiting_tokens -= tokens
            chosen.append((work, taken))
            if not work.remaining:
                self._queue.pop(0)
        return chosen

    async def _compute(self, chosen: _Round) -> None:
        started = time.perf_counter()
        for work, _ in chosen:
            work.started = work.started or started
        names = chosen[0][0].encoded
        rows = {name: [work.encoded[name][index] for work, taken in chosen for index in taken] for name in names}
        tokens = sum(map(len, rows["input_ids"]))
        self._observe(len(rows["input_ids"]), tokens)
        try:
            logits = await asyncio.get_running_loop().run_in_executor(self._threads, self._score, rows)
        except Exception as error:  # of any kind, from the runtime: it belongs to the requests of the round
            logger.error("Inference failed", exc_info=error)
            for work, _ in chosen:
                if not work.future.done():
                    work.future.set_exception(RequestError("backend", f"Inference failed: {type(error).__name__}"))
            return
        finally:
            self._slots.release()
        self._measure(tokens, started)
        start = 0
        for work, taken in chosen:
            work.logits[taken] = logits[start : start + len(taken)]
            start += len(taken)
            work.unscored -= len(taken)
            if not work.unscored and not work.future.done():
                work.future.set_result(None)

    def _measure(self, tokens: int, started: float) -> None:
        """Record the speed of a round, without the time in which the runtime computed the one before."""
        now = time.perf_counter()
        rate = tokens / max(now - max(started, self._finished), 1e-9)
        self._finished = now
        self._rate = _running_mean(self._rate if self._measured else 0.0, rate)
        self._measured = True


def _running_mean(mean: float, value: float) -> float:
    """The mean of values before, 0 for none, moved towards a new value."""
    return (1 - SMOOTHING) * mean + SMOOTHING * value if mean else value
