"""The Ranker protocol, and the batching that all runtimes share."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from transformers import PreTrainedTokenizerBase

from hfcompress.machine import thread_count

logger = logging.getLogger(__name__)

Pair = tuple[str, str]

MULTIPLE = 16  # of tokens, to which batches are padded where shapes are to be few
FEWEST_TOKENS = 1024  # of a batch, where there is enough for all workers


class Ranked(NamedTuple):
    """A document of a ranking: its position in the list given, and its score."""

    position: int
    score: float


@runtime_checkable
class Ranker(Protocol):
    """Anything that scores pairs of query and document."""

    name: str

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Raw logits, shape `(len(pairs),)`, float32; empty for no pairs."""
        ...

    def rank(self, query: str, documents: Sequence[str], top_k: int | None = None) -> list[Ranked]:
        """Documents from best to worst, with the checkpoint's activation applied to the scores."""
        ...


@dataclass(frozen=True)
class RankerOptions:
    """How a ranker uses the machine.

    Attributes:
        threads: Threads that the runtime may use; 0 stands for all cores.
        batch_tokens: Token budget of what is computed at a time: number of pairs times the length of the longest.
        providers: Execution providers of ONNX Runtime, the preferred one first.
    """

    threads: int = 0
    batch_tokens: int = 2048
    providers: tuple[str, ...] = ("CPUExecutionProvider",)


@cache
def _warn_once(message: str) -> None:
    """Warn, unless another ranker has said the same: one is made for every evaluation of a training."""
    logger.warning(message)


class BatchedRanker(ABC):
    """Length-sorted batches under a token budget, so that hardly any padding is computed.

    Args:
        name: Name in reports.
        tokenizer: Fast tokenizer; its `model_max_length` is the longest input.
        activation: Applied to the logits by `rank`.
        options: How to use the machine.
    """

    parallel_batches = 1  # batches that the runtime works on at the same time
    few_shapes = False  # whether the runtime makes kernels for each shape of a batch, which takes longer than the batch

    def __init__(
        self,
        name: str,
        tokenizer: PreTrainedTokenizerBase,
        activation: Callable[[np.ndarray], np.ndarray],
        options: RankerOptions,
    ):
        self.name = name
        self.tokenizer = tokenizer
        self.activation = activation
        self.threads = thread_count(options.threads)
        self.batch_tokens = options.batch_tokens
        self._warned = False

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Raw logits, shape `(len(pairs),)`, float32; empty for no pairs."""
        if not len(pairs):
            return np.empty(0, dtype=np.float32)
        encoded = self._encode(pairs)
        return self._score(encoded, self._places(encoded))

    def batches(self, pairs: Sequence[Pair]) -> Iterator[dict[str, np.ndarray]]:
        """Yield the inputs of each batch that `score` makes of pairs, as `forward` takes them."""
        if not len(pairs):
            return
        encoded = self._encode(pairs)
        for places in self._places(encoded):
            yield self._padded(encoded, places)

    def score_in_batches(self, pairs: Sequence[Pair], size: int, padding: float = 1.0) -> np.ndarray:
        """Raw logits as they come out of other batches than those of `score`: of the pairs in the order given.

        Args:
            pairs: Queries with documents.
            size: Pairs in a batch.
            padding: Length of every batch as a multiple of its longest pair; at most the longest input.

        Returns:
            Shape `(len(pairs),)`, float32.
        """
        if not len(pairs):
            return np.empty(0, dtype=np.float32)
        batches = np.split(np.arange(len(pairs)), range(size, len(pairs), size))
        return self._score(self._encode(pairs), batches, padding)

    def rank(self, query: str, documents: Sequence[str], top_k: int | None = None) -> list[Ranked]:
        """Documents from best to worst, with the checkpoint's activation applied to the scores.

        Documents with equal scores keep the order in which they were given.
        """
        logits = self.score([(query, document) for document in documents])
        order = np.argsort(-logits, kind="stable")[:top_k]
        scores = self.activation(logits)
        return [Ranked(int(index), float(scores[index])) for index in order]

    @abstractmethod
    def forward(self, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
        """Yield the logits of each batch, in the order of the batches.

        Args:
            batches: `input_ids`, `attention_mask` and `token_type_ids`, int64 of shape `(pairs, tokens)`.
        """

    def _encode(self, pairs: Sequence[Pair]) -> Mapping[str, list[list[int]]]:
        encoded = self.tokenizer(
            [query for query, _ in pairs],
            [document for _, document in pairs],
            truncation=True,
            return_attention_mask=False,
        )
        if not self._warned:
            self._warn_of_long_queries(pairs, [len(ids) for ids in encoded["input_ids"]])
        return encoded

    def _warn_of_long_queries(self, pairs: Sequence[Pair], lengths: Sequence[int]) -> None:
        """Warn once of a query that alone fills the input, of which truncation then takes a part, and of documents."""
        limit = self.tokenizer.model_max_length
        full = [query for (query, _), length in zip(pairs, lengths, strict=True) if length >= limit]
        # A token has a byte or more, so most queries need no second look.
        long = [query for query in dict.fromkeys(full) if len(query.encode()) >= limit]
        tokens = [len(ids) for ids in self.tokenizer(long, verbose=False)["input_ids"]] if long else []
        if max(tokens, default=0) >= limit:
            self._warned = True
            _warn_once(
                f"A query of {max(tokens)} tokens fills the whole input of {limit} and is cut itself; "
                f"{len(full) / len(pairs):.0%} of the pairs are truncated"
            )

    def _places(self, encoded: Mapping[str, list[list[int]]]) -> list[np.ndarray]:
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        return list(batches_of(lengths, self.batch_tokens, self.parallel_batches, self.few_shapes))

    def _score(
        self, encoded: Mapping[str, list[list[int]]], batches: Sequence[np.ndarray], padding: float = 1.0
    ) -> np.ndarray:
        scores = np.empty(len(encoded["input_ids"]), dtype=np.float32)
        inputs = (self._padded(encoded, places, padding) for places in batches)
        for places, logits in zip(batches, self.forward(inputs), strict=True):
            scores[places] = logits
        return scores

    def _padded(
        self, encoded: Mapping[str, list[list[int]]], places: np.ndarray, padding: float = 1.0
    ) -> dict[str, np.ndarray]:
        rows = [encoded["input_ids"][place] for place in places]
        longest = max(map(len, rows))
        length = _rounded(int(padding * longest), self.few_shapes)
        shape = len(rows), max(longest, min(length, self.tokenizer.model_max_length))
        batch = {
            "input_ids": np.full(shape, self.tokenizer.pad_token_id, dtype=np.int64),
            "attention_mask": np.zeros(shape, dtype=np.int64),
            "token_type_ids": np.zeros(shape, dtype=np.int64),
        }
        for number, (place, row) in enumerate(zip(places, rows, strict=True)):
            batch["input_ids"][number, : len(row)] = row
            batch["attention_mask"][number, : len(row)] = 1
            if "token_type_ids" in encoded:
                batch["token_type_ids"][number, : len(row)] = encoded["token_type_ids"][place]
        return batch


def batches_of(lengths: np.ndarray, budget: int, parallel: int = 1, few_shapes: bool = False) -> Iterator[np.ndarray]:
    """Yield the places of each batch, longest first; workers share the budget, and a small request.

    Args:
        lengths: Tokens of each pair, `(pairs,)`.
        budget: Tokens of all batches that are worked on at a time.
        parallel: Batches that are worked on at a time.
        few_shapes: Make batches of 1, 2, 4, 8 and so on pairs, whose lengths are then rounded up. Most lists of
            documents then come in shapes that the runtime knows.
    """
    budget = min(max(budget // parallel, FEWEST_TOKENS), budget, -(-int(lengths.sum()) // parallel))
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, min(budget // _rounded(int(lengths[order[start]]), few_shapes), len(order) - start))
        if few_shapes:
            size = 1 << (size.bit_length() - 1)
        yield order[start : start + size]
        start += size


def _rounded(length: int, few_shapes: bool) -> int:
    return length + -length % MULTIPLE if few_shapes else length
