"""Workers on a Ray cluster: processes that open a tool once, and then call functions with it.

Plain Ray actors, not Ray Data: the unit of work is what a single process scores at a time too, a shard of a folder or a
chunk of lists. So batches, and with them the last bits of scores, are those of one process, whatever the number of
workers and whichever of them is lost in mid-run. Ray Data cuts and joins blocks on its own, and its writers leave the
files of attempts that failed; nor does it call a worker for a few pairs, as teachers of a recovery are.

Ray alone carries what is sent: functions of this package by name, and plain values as their arguments. It pickles them
between the processes of one cluster, which trust each other; nothing is unpickled from a file.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import Empty, Queue
from typing import Any

from hfcompress.errors import ClusterError
from hfcompress.utils.machine import versions

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 5.0  # before a worker that was lost is started again
POLL_SECONDS = 5.0
WAITING_SECONDS = 30.0  # until a message
NO_WORKER_SECONDS = 600.0  # without any worker; a cluster that grows on demand takes minutes
CLOSE_SECONDS = 30.0
TRIES = 4  # of a call whose worker is lost each time


class RayWorkers:
    """Workers that several threads share, from `RayCluster.workers`.

    Args:
        number: Number of workers.
        needs: `CPU` and `GPU` that each needs.
        opener: Opens the tool in each worker.
        arguments: Its arguments.
    """

    def __init__(self, number: int, needs: dict[str, int], opener: Callable[..., Any], arguments: tuple[Any, ...]):
        import ray

        self._ray, self._needs, self._opening = ray, needs, (opener, arguments)
        self._lost = (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.ObjectLostError)
        self._free: Queue[Any] = Queue()  # of actors, or errors that all callers get
        self._lock = threading.Lock()
        self._living: set[Any] = set()  # actors that are ready or at work
        self._started: set[Any] = set()  # all actors
        self._closed = threading.Event()
        self.number = number
        self._threads: list[threading.Thread] = []
        for _ in range(number):
            self._start()

    def wait(self) -> None:
        """Wait until a worker is ready."""
        self._free.put(self._next())

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a worker, and wait for its result. If the worker is lost, another one gets the call.

        Args:
            function: A function of this package; its first argument is the tool of the worker.
            arguments: The others: strings, numbers, paths, arrays, and lists of them.

        Raises:
            ClusterError: Worker after worker is lost with this call, or none is left.
            HfCompressError: What the function raised.
        """
        for _ in range(TRIES):
            actor = self._next()
            try:
                found = self._ray.get(actor.call.remote(function, arguments))
            except self._lost as error:
                self._replace(actor, error)
                continue
            except self._ray.exceptions.RayTaskError as error:
                self._free.put(actor)
                raise error.cause from None
            self._free.put(actor)
            return found
        raise ClusterError(
            f"{TRIES} workers in turn were lost while they did the same work",
            value=arguments,
            expected="work for which a node has enough memory",
            remedy="look for the cause in Ray's logs on the nodes (ray logs); give workers more CPUs, so that there "
            "are fewer on a node, or lower --batch-tokens",
        )

    def calls(self, function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """Call a function for all items, as many at the same time as there are workers.

        Args:
            function: As for `call`.
            items: The arguments of each call.

        Yields:
            Index and result of each call, in the order in which they end.
        """
        threads = ThreadPoolExecutor(self.number, thread_name_prefix="ray call")
        try:
            running = {threads.submit(self.call, function, *item): index for index, item in enumerate(items)}
            for done in as_completed(running):
                yield running[done], done.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)  # those at work end with `close`

    def close(self) -> None:
        """End all workers, whatever they do."""
        self._closed.set()
        with self._lock:
            started = list(self._started)
        for actor in started:
            self._ray.kill(actor)
        for thread in self._threads:
            thread.join(CLOSE_SECONDS)

    def _start(self) -> None:
        thread = threading.Thread(target=self._open, daemon=True, name="ray worker")
        self._threads.append(thread)
        thread.start()

    def _open(self) -> None:
        """Start a worker and open its tool, again and again until that is done: its node may be lost meanwhile."""
        while not self._closed.is_set():
            options = {"num_cpus": self._needs["CPU"], "num_gpus": self._needs["GPU"], "scheduling_strategy": "SPREAD"}
            with self._lock:
                if self._closed.is_set():
                    return
                actor: Any = self._ray.remote(_Worker).options(**options).remote()
                self._started.add(actor)
            try:
                self._ray.get(actor.open.remote(_own_versions(), *self._opening))
            except self._lost as error:
                with self._lock:
                    self._started.discard(actor)
                if getattr(error, "actor_init_failed", False):
                    self._free.put(_unstarted(error))
                    return
                self._closed.wait(AGAIN_SECONDS)
                continue
            except self._ray.exceptions.RayTaskError as error:
                self._free.put(error.cause)
                return
            except self._ray.exceptions.RayError as error:  # such as a lost connection to the cluster
                self._free.put(_unstarted(error))
                return
            with self._lock:
                self._living.add(actor)
            self._free.put(actor)
            return

    def _replace(self, actor: Any, error: Exception) -> None:
        with self._lock:
            self._living.discard(actor)
            self._started.discard(actor)
        if self._closed.is_set():
            raise error
        self._ray.kill(actor)  # which may be unavailable for a while only
        logger.warning("a worker of the cluster was lost and is replaced: %s", str(error).splitlines()[0])
        self._start()

    def _next(self) -> Any:
        """A worker that is ready, as soon as there is one."""
        waited = 0.0
        while not self._closed.is_set():
            try:
                found = self._free.get(timeout=POLL_SECONDS)
            except Empty:
                with self._lock:
                    waited = 0.0 if self._living else waited + POLL_SECONDS
                if waited == WAITING_SECONDS:
                    logger.info("ray: waiting for a node with room for a worker")
                if waited >= NO_WORKER_SECONDS:
                    raise self._no_room() from None
                continue
            if isinstance(found, BaseException):
                self._free.put(found)
                raise found
            try:
                self._ray.get(found.ping.remote())  # it may have been lost since its last call
            except self._lost as error:
                self._replace(found, error)
                continue
            return found
        raise ClusterError("The workers were ended", expected="a call before that", remedy="call inside the block")

    def _no_room(self) -> ClusterError:
        has, free = self._ray.cluster_resources(), self._ray.available_resources()
        return ClusterError(
            f"No worker could be started on the cluster for {NO_WORKER_SECONDS / 60:g} minutes",
            value=", ".join(f"{free.get(name, 0):g} of {has.get(name, 0):g} {name}s free" for name in ("CPU", "GPU")),
            expected=f"a node with {self._needs['CPU']} CPUs and {self._needs['GPU']} GPUs that are free",
            remedy="end other jobs (ray status shows them), add nodes, or lower --cpus-per-worker",
        )


class _Worker:
    """What runs in the process of a worker. It opens its tool in a call: an error of that is not a lost worker."""

    _tool: Any = None

    def open(self, expected: dict[str, str], opener: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if (own := _own_versions()) != expected:
            names = [name for name in {**expected, **own} if expected.get(name) != own.get(name)]
            raise ClusterError(
                f"The node {socket.gethostname()} has other versions of packages",
                value=", ".join(f"{name} {own.get(name)} instead of {expected.get(name)}" for name in names),
                expected="the same versions on all nodes, which scores depend on",
                remedy="install the same environment everywhere",
            )
        self._tool = opener(*arguments)

    def ping(self) -> None:
        """Answer."""

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return function(self._tool, *arguments)


def _own_versions() -> dict[str, str]:
    """Versions of the packages that scores depend on; Ray itself compares those of Python and its own."""
    return {name: version for name, version in versions().items() if name != "python"}


def _unstarted(error: Exception) -> ClusterError:
    return ClusterError(
        "A worker cannot be started on a node of the cluster",
        value=(str(error).splitlines() or [""])[-1],
        expected="a node with the environment of this process, hfcompress included",
        remedy="install the same environment on all nodes",
    )
