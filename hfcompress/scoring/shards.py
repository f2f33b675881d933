"""Folders and several files: each file is a shard, scored whole, in this process or by a worker of a Ray cluster.

A shard is read, scored and written as `score_file` does, into a file of its own, which is moved into place when it is
complete. So it does not matter which process does it, nor whether one that was lost had begun with it.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from hfcompress.cluster.connection import RayCluster, RaySettings, ray_cluster
from hfcompress.errors import DataError
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.ray_ranker import ranker_workers
from hfcompress.rankers.base import BatchedRanker, RankerOptions
from hfcompress.scoring.formats import RowFormat, RowOptions
from hfcompress.scoring.opening import ScoreSettings, open_rows, rows_of
from hfcompress.scoring.score import ScoreSummary, append_scores, log_faults, scores_identity
from hfcompress.scoring.shard_folder import Shard, ShardFolder, ShardScores, find_shards
from hfcompress.scoring.sources import Source
from hfcompress.scoring.targets import FileTarget
from hfcompress.utils.progress import progress_bar
from hfcompress.utils.text import count

logger = logging.getLogger(__name__)

SHOWN = 20  # bad lines of a shard; the others are counted
Work = tuple[Path, Path, Path, str, ScoreSettings]


def score_shards(
    model: Candidate,
    inputs: Sequence[Path],
    output: Path,
    settings: ScoreSettings | None = None,
    options: RankerOptions | None = None,
    max_length: int | None = None,
    cluster: RaySettings | None = None,
    device: str = "auto",
) -> ScoreSummary:
    """Score the pairs of all files of a folder, or of several files.

    Everything that can be checked beforehand is checked before the model is loaded. The files of the output are the
    same whoever scores the shards, with the same number of threads, on the same kind of machine.

    Args:
        model: The model, as from `resolve_model`; on a cluster, all nodes see its folder.
        inputs: A folder, whose files and subfolders are read, or files; on a cluster, all nodes see them.
        output: A new folder, which gets a file for each file of the input; on a cluster, all nodes see it.
        settings: How to read, score and write.
        options: How the model uses the machine. Workers have as many threads as CPUs.
        max_length: Maximum input length in tokens; by default the model's.
        cluster: Score on the workers of this cluster; None for this process.
        device: Device of the workers, as for `RayCluster.device`; in this process it is the model's.

    Raises:
        ClusterError: The cluster cannot be reached, or has no room.
        DataError: The input cannot be scored, or has bad lines only.
        OutputError: The output cannot be written or resumed.
        HfCompressError: The model cannot be used.
    """
    settings, options = settings or ScoreSettings(), options or RankerOptions()
    shards, kind = find_shards(inputs, output, settings.format)
    open_rows(shards[0].source, output / shards[0].name, replace(settings, format=kind), model.folder)
    with ray_cluster(cluster) if cluster else nullcontext() as connection:
        if connection and cluster:
            model = replace(model, device=connection.device(device, model.runtime))
            options = replace(options, threads=cluster.cpus)
        folder = ShardFolder(output, scores_identity(model, settings, options, max_length), settings.resume)
        known = {shard: scores for shard in shards if (scores := folder.done(shard))}
        todo = {shard: _size(kind, shard.source, settings) for shard in shards if shard not in known}
        folder.begin()
        if known:
            logger.info("resumed behind %s of %s", len(known), count(len(shards), "shard"))
        with _engine(model, options, max_length, connection, len(todo)) as score:
            start = time.perf_counter()
            new = _score(score, todo, folder, kind, settings)
            seconds = time.perf_counter() - start
    found = [*known.values(), *new]
    pairs, bad_lines = sum(each.pairs for each in found), sum(each.bad_lines for each in found)
    if bad_lines and not pairs:
        folder.discard(shards)
        raise DataError(
            "No line of the input could be scored",
            value=count(bad_lines, "bad line"),
            expected="lines with a query and a document",
            remedy="see the messages above, and check --format and the names of the columns",
        )
    folder.complete()
    summary = ScoreSummary(pairs, bad_lines, sum(each.pairs for each in new), seconds)
    logger.info("%s; %s", summary, count(len(shards), "shard"))
    return summary


def score_shard(
    ranker: BatchedRanker, source: Path, target: Path, parts: Path, kind: str, settings: ScoreSettings
) -> ShardScores:
    """Score a shard. Its file is moved into place when it is complete, and has a name of its own until then.

    Args:
        ranker: The ranker.
        source: The shard.
        target: Its output.
        parts: Folder of files that are not complete, on the same filesystem.
        kind: Its format.
        settings: How to read, score and write.

    Raises:
        DataError: It cannot be read, or a line is bad and `settings.strict` is set.
    """
    rows = _rows(kind, source, settings)
    faults: list[str] = []
    part = FileTarget(parts / f"{secrets.token_hex(8)}.{target.name}", None)
    try:
        for _, bad in append_scores(ranker, rows, part, settings):
            faults += [str(fault) for fault in bad[: SHOWN - len(faults)]]
        part.complete(rows)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part.path, target)
    except BaseException:
        part.discard()
        part.path.unlink(missing_ok=True)
        raise
    return ShardScores(part.done.pairs, part.done.bad_lines, faults)


def _size(kind: str, source: Path, settings: ScoreSettings) -> tuple[int, str]:
    """Size and unit of a shard, whose columns and first lines are checked."""
    rows = _rows(kind, source, settings)
    return rows.size or 0, rows.unit


def _rows(kind: str, source: Path, settings: ScoreSettings) -> RowFormat:
    return rows_of(kind, Source(source), RowOptions(settings.names, settings.chunk_pairs, settings.strict))


@contextmanager
def _engine(
    model: Candidate, options: RankerOptions, max_length: int | None, cluster: RayCluster | None, shards: int
) -> Iterator[Callable[[Sequence[Work]], Iterable[tuple[int, ShardScores]]]]:
    """Yield a function that scores shards: index and result of each, when it is done."""
    if not shards:
        yield lambda works: ()
    elif cluster is None:
        ranker = model.ranker(max_length, options)
        yield lambda works: enumerate(score_shard(ranker, *work) for work in works)
    else:
        loading = {
            "runtime": model.runtime,
            "file": model.file,
            "max_length": max_length,
            "options": options,
            "device": model.device,
            "dtype": model.dtype,
        }
        with ranker_workers(cluster, model.device, model.folder, loading, shards) as workers:
            yield partial(workers.calls, score_shard)


def _score(
    score: Callable[[Sequence[Work]], Iterable[tuple[int, ShardScores]]],
    todo: dict[Shard, tuple[int, str]],
    folder: ShardFolder,
    kind: str,
    settings: ScoreSettings,
) -> list[ShardScores]:
    """Score and record shards."""
    shards, sizes = list(todo), [size for size, _ in todo.values()]
    works = [(shard.source, folder.path / shard.name, folder.parts, kind, settings) for shard in shards]
    unit = next((unit for _, unit in todo.values()), "row")
    hidden = not settings.progress
    new = []
    with progress_bar(total=sum(sizes), desc="score", unit=unit, unit_scale=True, disable=hidden, leave=False) as bar:
        for index, scores in score(works):
            folder.record(shards[index], scores)
            more = scores.bad_lines - len(scores.faults)
            log_faults([*scores.faults, *([f"{more:,} more in {shards[index].source}"] if more else [])])
            new.append(scores)
            bar.set_postfix_str(f"{len(new):,} of {len(shards):,} shards", refresh=False)
            bar.update(sizes[index])
    return new
