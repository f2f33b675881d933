"""Scores of models in fp32, kept in the cache folder: one SQLite file for each model and longest input.

A file holds hashes of pairs and their scores, no texts. Several processes may use it at the same time. What is wrong
with a file is never fatal: a damaged one is made anew, and one that is locked or cannot be written is left out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from transformers.utils import cached_file

from hfcompress.models.load import model_fingerprint, resolve
from hfcompress.rankers.base import Pair
from hfcompress.recipe import LongDocuments
from hfcompress.utils.cache import cache_folder
from hfcompress.utils.json_files import one_line
from hfcompress.utils.machine import versions

logger = logging.getLogger(__name__)

FORMAT = 1
MOST_BYTES = 512 << 20  # of all files, some 12 million scores; the models that were not used for longest go first
LOCK_SECONDS = 10.0
HASH_BYTES = 16
KEYS_PER_QUERY = 500
# Another version of one of these may compute other tokens or scores.
VERSIONS = ("hfcompress", "torch", "transformers", "tokenizers")

ResultT = TypeVar("ResultT")


class ScoreStore:
    """Scores by the hash of their pair, in a file of their own.

    Args:
        path: The file; it is created when there is something to keep.
    """

    def __init__(self, path: Path):
        self.path = path
        self._usable = True

    @classmethod
    def of_model(
        cls, name: str, max_length: int, file: str | None = None, long_documents: LongDocuments | None = None
    ) -> ScoreStore:
        """The store of a model.

        Args:
            name: A folder, a Hub id, or `package:NAME/FOLDER`.
            max_length: Longest input in tokens.
            file: Packed weights in the folder; None for the checkpoint's own.
            long_documents: How long documents are read; None for truncation by the tokenizer.
        """
        known: list[Any] = [FORMAT, loaded_fingerprint(name), file, max_length]
        known.append([versions().get(each) for each in VERSIONS])
        if long_documents and not long_documents.is_default:
            known.append(long_documents.model_dump(mode="json"))
        key = json.dumps(known)
        return cls(scores_folder() / f"{hashlib.sha256(key.encode()).hexdigest()}.sqlite")

    def get(self, keys: Iterable[bytes]) -> dict[bytes, float]:
        """The known scores among those of some keys."""
        wanted = list(dict.fromkeys(keys))
        if not self.path.is_file():
            return {}

        def read(connection: sqlite3.Connection) -> dict[bytes, float]:
            found: dict[bytes, Any] = {}
            for start in range(0, len(wanted), KEYS_PER_QUERY):
                part = wanted[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                found.update(connection.execute(f"SELECT pair, score FROM scores WHERE pair IN ({marks})", part))
            os.utime(self.path)  # for `_trim`
            return {key: score for key, score in found.items() if isinstance(score, float) and math.isfinite(score)}

        return self._use(read, {})

    def put(self, scores: Mapping[bytes, float]) -> None:
        """Keep scores; those that are not finite are left out."""
        rows = [(key, float(score)) for key, score in scores.items() if math.isfinite(score)]

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", rows)
            self._trim()

        if rows:
            self._use(write, None)

    def _use(self, work: Callable[[sqlite3.Connection], ResultT], otherwise: ResultT) -> ResultT:
        """Work with the file, or return the other result if that cannot be done."""
        for _ in range(2 * self._usable):
            try:
                return self._connected(work)
            except (sqlite3.OperationalError, OSError) as error:  # locked, full, not writable
                self._usable = False
                logger.info(f"scores: {self.path} is left out: {one_line(error)}")
                return otherwise
            except sqlite3.DatabaseError as error:
                logger.info(f"scores: {self.path} is damaged and made anew: {one_line(error)}")
                self.path.unlink(missing_ok=True)
        return otherwise

    def _connected(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=LOCK_SECONDS)) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS scores (pair BLOB PRIMARY KEY, score REAL) WITHOUT ROWID")
            return work(connection)

    def _trim(self) -> None:
        """Delete the files of other models, those that were not used for longest first, down to `MOST_BYTES`."""
        sizes = {path: path.stat() for path in self.path.parent.glob("*.sqlite")}
        total = sum(each.st_size for each in sizes.values())
        for path in sorted(sizes.keys() - {self.path}, key=lambda path: sizes[path].st_mtime):
            if total <= MOST_BYTES:
                return
            path.unlink(missing_ok=True)
            total -= sizes[path].st_size


def scores_folder() -> Path:
    """`scores` in the cache folder of the package."""
    return cache_folder() / "scores"


def pair_keys(pairs: Sequence[Pair]) -> list[bytes]:
    """Hash of each pair of texts."""
    return [_hash(query, document) for query, document in pairs]


def _hash(query: str, document: str) -> bytes:
    first, second = (text.encode(errors="surrogatepass") for text in (query, document))
    return hashlib.blake2b(b"%d:%b%b" % (len(first), first, second), digest_size=HASH_BYTES).digest()


def loaded_fingerprint(name: str, graph: str | None = None) -> str:
    """Fingerprint of what is loaded by a name; for a model on the Hub, its name and commit.

    Args:
        name: A folder, a Hub id, or `package:NAME/FOLDER`.
        graph: As for `model_fingerprint`.
    """
    if Path(resolve(name)).is_dir():
        return model_fingerprint(name, graph)
    return f"{name}@{Path(str(cached_file(name, 'config.json'))).parent.name}"
