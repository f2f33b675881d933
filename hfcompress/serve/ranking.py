"""The way of a request through tokenization, limits and the queue, the same for all interfaces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from starlette.requests import Request

from hfcompress.rankers.chunks import combined
from hfcompress.rankers.encoding import Side
from hfcompress.rankers.long_documents import CHUNKS
from hfcompress.serve.errors import RequestError
from hfcompress.serve.models import Models, ServedModel
from hfcompress.serve.settings import ServeSettings

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Wanted:
    """What a client asks for.

    Attributes:
        query: The query.
        documents: Texts to rank.
        model: Name of the model; None for the default one.
        truncate: Whether too long pairs are truncated instead of refused.
        side: Side that truncation removes tokens from; None for the tokenizer's.
        document_tokens: Tokens of each document that are read at most.
        document_chunks: Chunks of each document that are read at most, where the server reads documents in chunks.
        priority: Lower numbers come first.
    """

    query: str
    documents: Sequence[str]
    model: str | None = None
    truncate: bool = True
    side: Side | None = None
    document_tokens: int | None = None
    document_chunks: int | None = None
    priority: int = 0


@dataclass(frozen=True)
class Ranking:
    """Documents of a request from best to worst.

    Attributes:
        model: Name of the model.
        order: Indices of the documents in the given list, from best to worst; equal logits keep the given order.
        logits: Raw logits, by index in the given list: the scores of `Ranker.score`.
        scores: Their sigmoids.
        tokens: Tokens of all inputs: of pairs, or of the query with each chunk.
        headers: Times of the request in whole milliseconds under the names of text-embeddings-inference, and the
            total with three decimals.
    """

    model: str
    order: list[int]
    logits: list[float]
    scores: list[float]
    tokens: int
    headers: dict[str, str]

    def hits(self, top_n: int | None = None, raw: bool = False) -> list[tuple[int, float]]:
        """Index and score of the best documents.

        Args:
            top_n: Number of documents; None for all.
            raw: Logits instead of sigmoids.
        """
        scores = self.logits if raw else self.scores
        return [(index, scores[index]) for index in self.order[:top_n]]


async def rank(request: Request, models: Models, wanted: Wanted) -> Ranking:
    """Rank the documents of a request.

    Args:
        request: The request; if its client goes away, its work is cancelled.
        models: The models of the server.
        wanted: What it asks for.

    Raises:
        RequestError: There is no such model, a limit is exceeded, the server is overloaded, or inference failed.
    """
    started = time.perf_counter()
    models.metrics.count("te_request_count", "method", "batch")
    _check_count(wanted, models.settings)
    with models.using(wanted.model) as model:
        return await while_connected(request, _rank(model, models, wanted, started))


async def _rank(model: ServedModel, models: Models, wanted: Wanted, started: float) -> Ranking:
    batcher = model.batcher
    batcher.check_room()
    with batcher.arriving():
        begun = time.perf_counter()
        encoded = await asyncio.to_thread(_encode, model, wanted)
        chunks = encoded.pop(CHUNKS, None)
        tokenized = time.perf_counter() - begun
        lengths = [len(ids) for ids in encoded["input_ids"]]
        if sum(lengths) > models.settings.max_tokens:
            raise RequestError(
                "too_large",
                f"the pairs have {sum(lengths)} tokens > maximum allowed {models.settings.max_tokens} of a request; "
                "send fewer documents",
            )
        work = batcher.submit(encoded, wanted.priority)
    scored = await batcher.result(work)
    logits = scored.logits
    if chunks is not None:
        logits = combined(logits, chunks, model.source.long_documents.combine)
    if np.isnan(logits).any():
        raise RequestError("backend", "score is NaN")
    total = time.perf_counter() - started
    models.metrics.request(model.source.name, lengths, total, (tokenized, scored.queued, scored.computed))
    models.metrics.count("te_request_success", "method", "batch")
    times = {"total": total, "tokenization": tokenized, "queue": scored.queued, "inference": scored.computed}
    headers = {f"x-{name}-time": str(round(1000 * seconds)) for name, seconds in times.items()}
    return Ranking(
        model.source.name,
        np.argsort(-logits, kind="stable").tolist(),
        logits.tolist(),
        torch.sigmoid(torch.from_numpy(logits)).tolist(),
        sum(lengths),
        {
            **headers,
            "x-total-time-ms": f"{1000 * total:.3f}",
            "x-compute-tokens": str(sum(lengths)),
            "x-compute-type": model.ranker.name,
        },
    )


def _check_count(wanted: Wanted, settings: ServeSettings) -> None:
    if len(wanted.documents) > settings.max_texts:
        raise RequestError(
            "too_large", f"batch size {len(wanted.documents)} > maximum allowed batch size {settings.max_texts}"
        )


def _encode(model: ServedModel, wanted: Wanted) -> dict[str, list[Any]]:
    """Encode the pairs of a request; runs in a thread."""
    encoder, limit = model.encoder, model.max_length
    query, documents = encoder.query(wanted.query), encoder.documents(wanted.documents)
    pairs = [encoder.read(query, ids, limit, wanted.document_tokens, wanted.document_chunks) for ids in documents]
    if not wanted.truncate and not all(pair.complete for pair in pairs):
        chunks = ", or fit into the chunks of a document" if encoder.chunks else ""
        longest = len(query) + max(ids.shape[-1] for ids in documents) + encoder.special_tokens
        raise RequestError(
            "too_large",
            f"`inputs` must have less than {limit + 1} tokens{chunks}. Given: {longest}. Or set truncate",
        )
    return encoder.encode_read(pairs, limit, wanted.side)


async def while_connected(request: Request, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """The result of work that is cancelled if the client goes away.

    Raises:
        RequestError: The client went away.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RequestError("disconnected", "the client went away")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
