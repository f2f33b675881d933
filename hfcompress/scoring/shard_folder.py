"""Shards of an input, and the output folder, which records those that are done until all are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hfcompress.errors import DataError, OutputError
from hfcompress.scoring.formats import FORMATS, format_of
from hfcompress.scoring.sources import is_stream
from hfcompress.scoring.targets import FORMAT, require_same
from hfcompress.utils.files import write_text
from hfcompress.utils.json_files import read_object
from hfcompress.utils.text import count

WORK_FOLDER = ".scoring"  # in the output, until it is complete; readers of Parquet folders skip such names
SHARD_FORMATS = tuple(name for name in FORMATS if name != "trec")


class Shard(NamedTuple):
    """A file of the input.

    Attributes:
        source: The file.
        name: Its path in the output folder.
    """

    source: Path
    name: str


class ShardScores(NamedTuple):
    """What was done with a shard.

    Attributes:
        pairs: Number of pairs with a score.
        bad_lines: Number of lines that were left out.
        faults: Errors of the first ones.
    """

    pairs: int
    bad_lines: int
    faults: list[str]


def find_shards(inputs: Sequence[Path], output: Path, kind: str | None = None) -> tuple[list[Shard], str]:
    """Find the files of an input. Hidden ones and those of other formats are left out of a folder.

    Args:
        inputs: A folder, or files.
        output: The output folder.
        kind: Their format; None for that of their names.

    Returns:
        The shards in the order of their names, and their format.

    Raises:
        DataError: There are none, they have several formats or one that has no shards, or two have one name.
        OutputError: The output is in the input, or a stream.
    """
    if is_stream(output):
        raise OutputError(
            "Many files have no stream", value=str(output), expected="a folder", remedy="name one with --output"
        )
    shards = [shard for path in inputs for shard in _found(path, output, kind)]
    kinds = {kind} if kind else {format_of(shard.source) for shard in shards}
    names = [shard.name for shard in shards]
    if not shards or len(kinds) > 1 or not kinds <= set(SHARD_FORMATS):
        raise DataError(
            "This is no input in shards",
            value=f"{', '.join(map(str, inputs))}: {count(len(shards), 'file')}, formats {sorted(map(str, kinds))}",
            expected=f"a folder with files, or files, of one of the formats {', '.join(SHARD_FORMATS)}",
            remedy="correct --input, or add --format; score run files one by one",
        )
    if len(set(names)) < len(names):
        raise DataError(
            "Two files of the input have the same name",
            value=sorted(name for name in set(names) if names.count(name) > 1)[:5],
            expected="a name for each, which its output gets",
            remedy="rename them, or name the folder above them",
        )
    return sorted(shards, key=lambda shard: shard.name), kinds.pop() or ""


def _found(path: Path, output: Path, kind: str | None) -> Iterator[Shard]:
    if is_stream(path) or not path.exists():
        raise DataError(
            "There is no such file or folder", value=str(path), expected="files, or a folder", remedy="correct --input"
        )
    path = path.absolute()
    if path.is_file():
        yield Shard(path, path.name)
        return
    if output.resolve().is_relative_to(path.resolve()):
        raise OutputError(
            "The output is in the input",
            value=f"{output} in {path}",
            expected="a folder elsewhere",
            remedy="correct --output",
        )
    for each in sorted(path.rglob("*")):
        inside = each.relative_to(path)
        hidden = any(part.startswith((".", "_")) for part in inside.parts)
        if each.is_file() and not hidden and (kind or format_of(each)):
            yield Shard(each, inside.as_posix())


class ShardFolder:
    """The output folder, with a record of each shard that is done until all are.

    Args:
        path: The folder.
        settings: All that scores depend on but the input.
        resume: Keep the shards of an interrupted call.

    Raises:
        OutputError: There are shards of an interrupted call and not `resume`, they have other settings, or the folder
            has other files.
    """

    def __init__(self, path: Path, settings: dict[str, Any], resume: bool):
        self.path, self._settings = path.absolute(), settings
        self._work = self.path / WORK_FOLDER
        self._state, self._records, self.parts = (self._work / name for name in ("state.json", "done", "parts"))
        others = sorted(each.name for each in path.iterdir() if each.name != WORK_FOLDER) if path.is_dir() else []
        if self._state.is_file() and (others or self._records.is_dir()):  # otherwise it ended before its first shard
            if not resume:
                raise OutputError(
                    "The output has shards of an interrupted call",
                    value=str(path),
                    expected="--resume, which keeps them",
                    remedy=f"add --resume, or delete {path} to start over",
                )
            require_same(read_object(self._state, OutputError), settings, path)
        elif others:
            raise OutputError(
                "The output folder has other files",
                value=f"{path}: {', '.join(others[:5])}",
                expected="a new or an empty folder, or one of an interrupted call",
                remedy="choose another folder with --output",
            )

    def begin(self) -> None:
        """Write the settings, and delete what processes that were killed left."""
        shutil.rmtree(self.parts, ignore_errors=True)
        self.parts.mkdir(parents=True)
        write_text(self._state, json.dumps({"format": FORMAT, "settings": self._settings}))

    def done(self, shard: Shard) -> ShardScores | None:
        """What was done with a shard; None if it is to be scored, again if its file has changed."""
        path = self._record_of(shard)
        if not path.is_file() or not (self.path / shard.name).is_file():
            return None
        record = read_object(path, OutputError)
        same = record.get("file") == _state_of(shard)
        return ShardScores(record["pairs"], record["bad_lines"], []) if same else None

    def record(self, shard: Shard, scores: ShardScores) -> None:
        """Record a shard that is in place."""
        content = {"file": _state_of(shard), "pairs": scores.pairs, "bad_lines": scores.bad_lines}
        write_text(self._record_of(shard), json.dumps(content))

    def complete(self) -> None:
        """Delete the records: all shards are there."""
        shutil.rmtree(self._work)

    def discard(self, shards: Iterable[Shard]) -> None:
        """Delete the output."""
        for shard in shards:
            (self.path / shard.name).unlink(missing_ok=True)
        shutil.rmtree(self._work)

    def _record_of(self, shard: Shard) -> Path:
        return self._records / f"{shard.name}.json"


def _state_of(shard: Shard) -> list[int]:
    """What changes with the content of a file, without reading it."""
    facts = shard.source.stat()
    return [facts.st_size, facts.st_mtime_ns]
