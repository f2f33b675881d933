"""The models of a server by name: loaded by `load_ranker`, and loaded again when their folders change."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from hfcompress.data.score_text import require_plain_documents
from hfcompress.errors import DataError
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.systems import resolve_model
from hfcompress.models.layout import WORK_FOLDER
from hfcompress.models.load import load_config
from hfcompress.rankers.base import BatchedRanker, RankerOptions
from hfcompress.rankers.encoding import CacheCounts
from hfcompress.rankers.load import Runtime
from hfcompress.rankers.long_documents import LongDocumentEncoder
from hfcompress.recipe import TRUNCATED, LongDocuments
from hfcompress.serve.batching import Batcher
from hfcompress.serve.errors import RequestError
from hfcompress.serve.metrics import Metrics
from hfcompress.serve.settings import ServeSettings

logger = logging.getLogger(__name__)

TEACHER = "teacher"
MINIMUM_LENGTH = 8  # of an input, in tokens
Signature = tuple[object, ...]


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from, and how it runs.

    Attributes:
        name: Name in requests.
        location: A folder, a file in it, or a Hub id. A link is followed each time the model is loaded.
        runtime: Its runtime; None for the fastest.
        device: Device, as for `load_ranker`.
        threads: Threads of the runtime; 0 for all.
        cache_bytes: Memory of its cache of tokenized documents.
        long_documents: How it reads documents that do not fit into one input.
    """

    name: str
    location: str
    runtime: Runtime | None = None
    device: str = "auto"
    threads: int = 0
    cache_bytes: int = 64 << 20
    long_documents: LongDocuments = TRUNCATED

    def signature(self) -> Signature:
        """What changes when the folder does: its real path, and names, times and sizes of its files."""
        real = Path(os.path.realpath(self.location))
        folder = real if real.is_dir() else real.parent
        if not real.exists():
            return ()
        try:
            paths = [path for path in sorted(folder.rglob("*")) if WORK_FOLDER not in path.relative_to(folder).parts]
            found = [(str(path), (state := path.stat()).st_mtime_ns, state.st_size) for path in paths]
        except FileNotFoundError:  # deleted meanwhile: there will be another look
            return ()
        return (str(real), *found)


@dataclass(eq=False)
class ServedModel:
    """A loaded model with its queue.

    Attributes:
        source: Where it comes from.
        candidate: The file and the runtime that were chosen.
        ranker: Its ranker.
        encoder: Encodes its pairs.
        batcher: Its queue.
        signature: The signature of the folder when loading began.
        loaded: Time of loading, in seconds since the epoch.
        users: Requests that use it.
    """

    source: ModelSource
    candidate: Candidate
    ranker: BatchedRanker
    encoder: LongDocumentEncoder
    batcher: Batcher
    signature: Signature
    loaded: float = field(default_factory=time.time)
    users: int = 0

    @property
    def max_length(self) -> int:
        """Maximum input length in tokens."""
        return self.ranker.tokenizer.model_max_length

    async def retire(self) -> None:
        """Answer the requests that use this model, and stop its queue."""
        while self.users:
            await asyncio.sleep(0.02)
        await self.batcher.close()


def sources_of(names: Sequence[str], common: ModelSource, teacher: bool = True) -> list[ModelSource]:
    """The models that command-line arguments name.

    Args:
        names: Folders or Hub ids, each as `DIR` or `NAME=DIR`; `DIR` alone is named after its last part.
        common: Settings of all models; its name and location are not used.
        teacher: Also serve the teacher of the first run that keeps it in its folder, as `teacher`.

    Raises:
        DataError: Two models have the same name, or one has none.
    """
    found: list[ModelSource] = []
    for each in names:
        before, separator, behind = each.partition("=")
        named = bool(separator) and "/" not in before and not Path(each).exists()
        name, location = (before, behind) if named else (Path(os.path.abspath(each)).name, each)
        if not name or not location or name in [other.name for other in found]:
            raise DataError(
                "Each model needs a name of its own",
                value=each,
                expected="DIR, which is named after its last part, or NAME=DIR",
                remedy="name the model: NAME=DIR",
            )
        found.append(replace(common, name=name, location=location))
    if teacher and TEACHER not in [each.name for each in found]:
        folders = [Path(each.location, WORK_FOLDER, TEACHER) for each in found]
        kept = [folder for folder in folders if (folder / "config.json").is_file()]
        found += [replace(common, name=TEACHER, location=str(kept[0]), runtime="torch")] if kept else []
    return found


class Models:
    """The models of a server; the first one is the default.

    Args:
        sources: Where they come from.
        settings: Limits of the server.

    Raises:
        HfCompressError: A model cannot be loaded.
    """

    def __init__(self, sources: Sequence[ModelSource], settings: ServeSettings):
        self.settings = settings
        self.metrics = Metrics(self._state)
        self._models = {source.name: self._load(source) for source in sources}
        self._refused: dict[str, Signature] = {}  # what could not be loaded
        self._asked = False
        self._retiring: set[asyncio.Task[None]] = set()

    def all(self) -> list[ServedModel]:
        """The models, the default one first."""
        return list(self._models.values())

    @contextmanager
    def using(self, name: str | None) -> Iterator[ServedModel]:
        """A model, which is not unloaded within the block.

        Args:
            name: Its name; None for the default one.

        Raises:
            RequestError: There is no such model.
        """
        model = next(iter(self._models.values())) if name is None else self._models.get(name)
        if model is None:
            raise RequestError("not_found", f"model {name!r} not found; there are {', '.join(map(repr, self._models))}")
        model.users += 1
        try:
            yield model
        finally:
            model.users -= 1

    def start(self) -> None:
        """Start to score; called in the event loop."""
        for model in self.all():
            model.batcher.start()

    async def close(self) -> None:
        """Answer what waits, and stop."""
        await asyncio.gather(*(model.retire() for model in self.all()), *self._retiring)

    def ask_to_reload(self) -> None:
        """Load all models again soon; may be called in a signal handler."""
        self._asked = True

    async def watch(self) -> None:
        """Load models again when asked, or when their folders have changed and rest."""
        last = {model.source.name: model.signature for model in self.all()}
        while True:
            await asyncio.sleep(self.settings.poll_seconds)
            asked, self._asked = self._asked, False
            for model in self.all():
                source = model.source
                now = await asyncio.to_thread(source.signature)
                rests, last[source.name] = now == last[source.name], now
                changed = now and rests and now not in (model.signature, self._refused.get(source.name))
                if asked or changed:
                    await self._reload(source, now)

    async def _reload(self, source: ModelSource, signature: Signature) -> None:
        """Load a model in a thread and put it in the place of the old one, which answers what it has begun."""
        try:
            new = await asyncio.to_thread(self._load, source)
        except Exception as error:  # what a runtime raises for a damaged file may be anything
            self._refused[source.name] = signature
            self.metrics.count("hfcompress_reloads", "result", "failed")
            logger.warning("%s cannot be loaded again, and the model from before stays: %s", source.name, error)
            return
        new.batcher.start()
        old, self._models[source.name] = self._models[source.name], new
        self.metrics.count("hfcompress_reloads", "result", "loaded")
        logger.info("%s was loaded again", source.name)
        task = asyncio.get_running_loop().create_task(old.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _load(self, source: ModelSource) -> ServedModel:
        signature = source.signature()
        # A link is followed once, so that no file is read from where it leads to later.
        location = os.path.realpath(source.location) if os.path.exists(source.location) else source.location
        candidate = resolve_model(location, source.name, source.runtime, source.device)
        require_plain_documents(source.location, load_config(candidate.folder))
        ranker = candidate.ranker(None, RankerOptions(source.threads, long_documents=source.long_documents))
        encoder = LongDocumentEncoder(ranker.tokenizer, source.long_documents, source.cache_bytes)
        # What a runtime does at its first call, and faults that it has only then.
        ranker.score_encoded(encoder.joined([(encoder.query("a"), encoder.query("a"))], MINIMUM_LENGTH))
        return ServedModel(source, candidate, ranker, encoder, self._batcher(source.name, ranker), signature)

    def _batcher(self, name: str, ranker: BatchedRanker) -> Batcher:
        settings = self.settings
        observe: Callable[[int, int], None] = lambda pairs, tokens: self.metrics.batch(name, pairs, tokens)  # noqa: E731
        return Batcher(ranker.score_encoded, settings.batch_tokens, settings.max_wait, settings.queue_tokens, observe)

    def _state(self) -> dict[str, tuple[int, int, CacheCounts]]:
        return {
            model.source.name: (model.batcher.waiting, model.batcher.waiting_tokens, model.encoder.cache.counts())
            for model in self.all()
        }
