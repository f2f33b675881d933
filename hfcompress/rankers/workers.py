"""Rankers whose runtime computes several batches at the same time, each in a thread of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from hfcompress.rankers.base import BatchedRanker


class WorkersRanker(BatchedRanker):
    """Base class of rankers with `parallel_batches` worker threads, which the batches of all callers share."""

    workers: ThreadPoolExecutor

    def start_workers(self) -> None:
        """Create the pool; threads start with the first batches."""
        self.workers = ThreadPoolExecutor(self.parallel_batches, thread_name_prefix=self.name)

    def after_fork(self) -> None:
        """Create a new pool: the threads of the old one do not exist in this process."""
        super().after_fork()
        self.start_workers()

    def forward(self, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
        """Yield the logits of each batch; one batch for each worker is in flight, and one more is queued."""
        self.check_process()
        running: deque[Future[np.ndarray]] = deque()
        for batch in batches:
            if len(running) > self.parallel_batches:
                yield running.popleft().result()
            running.append(self.workers.submit(self._logits, batch))
        while running:
            yield running.popleft().result()

    @abstractmethod
    def _logits(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """Logits of a batch, shape `(pairs,)`; called from several threads at the same time."""
