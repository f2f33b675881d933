"""A ranker whose workers are on a Ray cluster, for scores of many lists."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hfcompress.cluster.connection import RayCluster, RaySettings, ray_cluster
from hfcompress.cluster.workers import RayWorkers
from hfcompress.errors import ModelError
from hfcompress.evaluation.score_store import loaded_fingerprint
from hfcompress.evaluation.scores import ACCELERATOR_TOKENS
from hfcompress.rankers.base import BatchedRanker, Pair, RankerOptions
from hfcompress.rankers.load import Runtime, load_ranker
from hfcompress.recipe.teacher import ScoreLabel
from hfcompress.utils.device import CPU


class RayRanker:
    """Scores pairs on a cluster: a `Ranker` without `rank`, from `ray_ranker`.

    Each call is done by one worker, in the batches of one process, so its scores are those of `load_ranker` on the same
    kind of CPU or GPU with as many threads. Several threads may call at the same time.

    Args:
        name: Name of the model.
        workers: The workers.

    Attributes:
        name: Name of the model.
        parallel_calls: Number of calls that are done at the same time.
    """

    def __init__(self, name: str, workers: RayWorkers):
        self.name, self._workers = name, workers
        self.parallel_calls = workers.number

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Raw logits, shape `(len(pairs),)`, float32; empty for no pairs.

        Raises:
            ClusterError: Worker after worker is lost, or none is left.
        """
        scores: np.ndarray = self._workers.call(_score, [tuple(pair) for pair in pairs])
        return scores


@contextmanager
def ray_ranker(
    settings: RaySettings,
    model: str,
    runtime: Runtime = "torch",
    file: str | None = None,
    max_length: int | None = None,
    device: str = "auto",
    score: ScoreLabel | None = None,
) -> Iterator[RayRanker]:
    """Score with a model on a Ray cluster, within the block.

    Args:
        settings: Which cluster, and what of it.
        model: A folder that all nodes see under its absolute path, a Hub id, or `package:NAME/FOLDER`.
        runtime: Runtime of the model.
        file: File in the folder, as for `load_ranker`.
        max_length: Maximum input length in tokens; by default the model's.
        device: `auto`, `cpu` or `cuda`, as for `RayCluster.device`.
        score: The score of a classifier, as for `load_ranker`.

    Raises:
        ClusterError: The cluster cannot be reached, or has no room for a worker.
        MissingExtraError: Ray is not installed.
        ModelError: A node has no such model.
    """
    with ray_cluster(settings) as cluster:
        place = cluster.device(device, runtime)
        tokens = RankerOptions().batch_tokens if place == CPU else ACCELERATOR_TOKENS
        loading = {
            "runtime": runtime,
            "file": file,
            "max_length": max_length,
            "options": RankerOptions(settings.cpus, tokens),
            "device": place,
            "score": score,
        }
        with ranker_workers(cluster, place, model, loading) as workers:
            yield RayRanker(model, workers)


def ranker_workers(
    cluster: RayCluster, device: str, model: str, loading: dict[str, Any], most: int | None = None
) -> Any:
    """Workers whose tool is a ranker, as a context manager.

    Args:
        cluster: The cluster.
        device: Device of the workers.
        model: As for `ray_ranker`.
        loading: Other arguments of `load_ranker`.
        most: As for `RayCluster.workers`.
    """
    name = str(Path(model).absolute()) if Path(model).is_dir() else model
    return cluster.workers(device, most, open_ranker, name, loaded_fingerprint(name, loading["file"]), loading)


def open_ranker(name: str, fingerprint: str, loading: dict[str, Any]) -> BatchedRanker:
    """Load a ranker in a worker.

    Args:
        name: The model.
        fingerprint: Its `loaded_fingerprint` on the machine that asks.
        loading: Other arguments of `load_ranker`.

    Raises:
        ModelError: This node has no such model, or another one under this name.
    """
    missing = Path(name).is_absolute() and not Path(name).is_dir()
    if missing or loaded_fingerprint(name, loading["file"]) != fingerprint:
        raise ModelError(
            f"The node {socket.gethostname()} has {'no' if missing else 'another'} model under this name",
            value=name,
            expected="the same files on all nodes",
            remedy="put it into a folder that all nodes share, or on the Hub",
        )
    return load_ranker(name, **loading)


def _score(ranker: BatchedRanker, pairs: list[Pair]) -> np.ndarray:
    return ranker.score(pairs)
