"""Which Ray cluster is used, and the connection of this process to it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from hfcompress.cluster.workers import RayWorkers
from hfcompress.errors import ClusterError, MissingExtraError
from hfcompress.utils.device import CPU, CUDA
from hfcompress.utils.quiet import debugging
from hfcompress.utils.text import count

logger = logging.getLogger(__name__)

ENGINES = ("local", "ray")
DEVICES = (CPU, CUDA)
ADDRESS_VARIABLE, STATISTICS_VARIABLE = "RAY_ADDRESS", "RAY_USAGE_STATS_ENABLED"
FIND, NEW = "auto", "local"  # addresses that Ray gives a meaning of their own
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class RaySettings:
    """Which Ray cluster to use, and what of it.

    Attributes:
        address: `host:port`, `auto` for one that runs on this machine, or `local` for a new one; None for that of
            `RAY_ADDRESS`, else one that runs here, else a new one, as in Ray itself.
        workers: Number of workers; 0 for as many as the cluster has room for.
        cpus: CPUs of each worker, which are also the threads of its runtime.
    """

    address: str | None = None
    workers: int = 0
    cpus: int = 1


def ray_settings(engine: str, address: str | None = None, workers: int = 0, cpus: int = 1) -> RaySettings | None:
    """Settings of an engine; None for `local`, which is this process.

    Args:
        engine: `local` or `ray`.
        address: As for `RaySettings`.
        workers: As for `RaySettings`.
        cpus: As for `RaySettings`.

    Raises:
        ClusterError: There is no such engine, or `local` is given settings of a cluster.
        MissingExtraError: Ray is not installed.
    """
    if engine not in ENGINES:
        raise ClusterError(
            "There is no such engine", value=engine, expected=" or ".join(ENGINES), remedy="correct --engine"
        )
    settings = RaySettings(address, workers, cpus)
    if engine == "ray":
        require_ray()
        return settings
    if settings != RaySettings():
        raise ClusterError(
            "Only --engine ray has workers on a cluster",
            value=f"--address {address}, --workers {workers}, --cpus-per-worker {cpus} with --engine local",
            expected="--engine ray with these options",
            remedy="add --engine ray, or leave them out",
        )
    return None


def require_ray() -> None:
    """Check that Ray is installed, without loading it.

    Raises:
        MissingExtraError: It is not.
    """
    if find_spec("ray") is None:
        raise MissingExtraError("ray", "ray", "The engine 'ray'")


def check_cluster(settings: RaySettings) -> None:
    """Check that Ray is installed, and that a cluster with an address can be reached.

    Args:
        settings: Which cluster.

    Raises:
        ClusterError: It cannot be reached.
        MissingExtraError: Ray is not installed.
    """
    require_ray()
    address = settings.address or os.environ.get(ADDRESS_VARIABLE)
    if address in (None, "", FIND, NEW):
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is no number
        host = port = None
    if parts.scheme or not host or not port:
        raise ClusterError(
            "This is not the address of a Ray cluster",
            value=address,
            expected=f"host:port of its head node (port 6379 by default), {FIND} or {NEW}",
            remedy=f"correct --address, recover.ray.address or {ADDRESS_VARIABLE}, and start the command on a node of "
            "the cluster: Ray's client protocol (ray://) is not supported",
        )
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:  # ray.init would try for minutes
        raise _unreachable(address, error) from error


@contextmanager
def ray_cluster(settings: RaySettings) -> Iterator[RayCluster]:
    """Connect this process to a Ray cluster within the block.

    A connection that the process has already is used, and stays open. A cluster that Ray starts here has no dashboard
    and sends no usage statistics.

    Args:
        settings: Which cluster.

    Raises:
        ClusterError: It cannot be reached.
        MissingExtraError: Ray is not installed.
    """
    require_ray()
    os.environ.setdefault(STATISTICS_VARIABLE, "0")
    import ray

    if ray.is_initialized():
        yield RayCluster(settings)
        return
    check_cluster(settings)
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=settings.address,
            include_dashboard=False,
            log_to_driver=debugging(),
            logging_level=logging.INFO if debugging() else logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise _unreachable(settings.address or os.environ.get(ADDRESS_VARIABLE) or FIND, error) from error
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)  # Ray sets its own
    try:
        yield RayCluster(settings)
    finally:
        ray.shutdown()


class RayCluster:
    """A cluster that this process is connected to; see `ray_cluster`.

    Args:
        settings: What of it to use.
    """

    def __init__(self, settings: RaySettings):
        self.settings = settings

    def device(self, name: str, runtime: str) -> str:
        """The device of workers: `cpu`, or `cuda` for the GPU that Ray gives to each.

        Args:
            name: `auto` for GPUs if the cluster has some and the model runs in PyTorch, `cpu` or `cuda`.
            runtime: Runtime of the model.

        Raises:
            ClusterError: There is no such device.
        """
        if name == "auto":
            gpus = sum(node.get("GPU", 0) for node in self._nodes())
            return CUDA if gpus and runtime == "torch" else CPU
        if name not in DEVICES:
            raise ClusterError(
                "The workers of a cluster cannot use this device",
                value=name,
                expected="auto, cpu or cuda: Ray gives a GPU to each worker",
                remedy="correct --device, or device",
            )
        return name

    @contextmanager
    def workers(
        self, device: str, most: int | None, opener: Callable[..., Any], *arguments: Any
    ) -> Iterator[RayWorkers]:
        """Start workers, and end them behind the block. It begins when one of them is ready.

        Args:
            device: `cpu`, or `cuda` for a GPU for each.
            most: Largest number that is of use; None for any.
            opener: Opens the tool in each worker.
            arguments: Its arguments.

        Raises:
            ClusterError: The cluster has no room for a worker, or its versions of packages are others.
            HfCompressError: What `opener` raised.
        """
        needs = {"CPU": self.settings.cpus, "GPU": int(device == CUDA)}
        nodes = self._nodes()
        room = sum(min(int(node.get(name, 0) // each) for name, each in needs.items() if each) for node in nodes)
        wanted = self.settings.workers or room
        number = max(1, min(wanted, most) if most else wanted)
        workers = RayWorkers(number, needs, opener, arguments)
        try:
            workers.wait()
            logger.info(
                f"ray: {count(number, 'worker')} with {count(needs['CPU'], 'CPU')}"
                f"{' and a GPU' if needs['GPU'] else ''} each, on {count(len(nodes), 'node')}"
            )
            yield workers
        finally:
            workers.close()

    def _nodes(self) -> list[dict[str, float]]:
        """Resources of each node."""
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _unreachable(address: str, error: Exception) -> ClusterError:
    return ClusterError(
        "The Ray cluster cannot be reached",
        value=f"{address}: {(str(error).splitlines() or [''])[0]}",
        expected="the address of the head node of a running cluster, from one of its nodes, with the same versions of "
        "Python and Ray",
        remedy="start one with `ray start --head`, or correct the address",
    )
