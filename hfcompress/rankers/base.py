"""The `Ranker` protocol, and the batching of all runtimes."""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import nlargest
from threading import Lock
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from transformers import PreTrainedTokenizerBase

from hfcompress.errors import ModelError
from hfcompress.models.prompts import encode_pairs, prompts_of
from hfcompress.models.tokenizer import require_padding
from hfcompress.rankers.batches import batches_of, padded_length
from hfcompress.rankers.chunks import combined
from hfcompress.rankers.encoding import PairEncoder
from hfcompress.rankers.fork import adapt_after_fork, unusable_after_fork
from hfcompress.rankers.long_documents import CHUNKS, LongDocumentEncoder, warn_of_cut_query
from hfcompress.recipe import TRUNCATED, LongDocuments
from hfcompress.utils.machine import thread_count

logger = logging.getLogger(__name__)

# The longest of a call, for the warning of truncated queries: counting the tokens of all takes time.
CHECKED_QUERIES = 16
Pair = tuple[str, str]
Encoded = Mapping[str, Sequence[Any]]  # inputs of each pair by name: sequences of ints


class Ranked(NamedTuple):
    """A ranked document: its position in the given list, and its score."""

    position: int
    score: float


@runtime_checkable
class Ranker(Protocol):
    """Anything that scores pairs of query and document.

    All methods may be called from several threads at the same time, and return what they return in a single thread.
    """

    name: str

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Raw logits, shape `(len(pairs),)`, float32; empty for no pairs."""
        ...

    def rank(self, query: str, documents: Sequence[str], top_k: int | None = None) -> list[Ranked]:
        """Documents from best to worst, with the activation of the checkpoint applied to their scores."""
        ...


@dataclass(frozen=True)
class RankerOptions:
    """How a ranker uses the machine, and how it reads long documents.

    Attributes:
        threads: Threads of the runtime; 0 uses all cores that the process may use, within the CPU
            quota of a container.
        batch_tokens: Token budget of the batches in flight: number of pairs times padded length.
        providers: Execution providers of ONNX Runtime, the preferred one first.
        device: Device of a model in PyTorch and of ONNX Runtime's provider for GPUs, as PyTorch names it.
        cache_bytes: Memory for tokenized documents, which are then tokenized once while they stay in this cache, with
            the same scores; 0 for no cache.
        long_documents: How documents are read that do not fit into one input.
    """

    threads: int = 0
    batch_tokens: int = 2048
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    device: str = "cpu"
    cache_bytes: int = 0
    long_documents: LongDocuments = TRUNCATED


def raw_logits(logits: np.ndarray) -> np.ndarray:
    """The identity, for rankers whose scores stay logits."""
    return logits


class BatchedRanker(ABC):
    """Base class of rankers that sort pairs by length and batch them under a token budget, with little padding.

    All methods may be called from several threads at the same time, with the results of a single thread. Callers share
    the runtime's `threads`, so more callers do not use more cores.

    A ranker that `load_ranker` returned is pickled and copied as the call that loaded it: the copy is loaded from the
    same files, without changes made to the ranker since. Other rankers refuse both.

    In a process that was forked after the ranker was loaded, ONNX Runtime on the CPU works as before, PyTorch on the
    CPU computes with one thread, and others raise a ModelError at the first call; so does any ranker that was scoring
    in another thread at the time of the fork.

    Args:
        name: Name in reports.
        tokenizer: Fast tokenizer; its `model_max_length` is the maximum input length. From `load_tokenizer`, it has the
            model's default prompt, which is prepended to each query. The ranker encodes with a copy, so other uses of
            the tokenizer do not interfere.
        activation: Applied to the logits by `rank`.
        options: How to use the machine, and how to read long documents.
    """

    parallel_batches = 1  # batches that the runtime computes at the same time
    few_shapes = False  # whether the runtime compiles kernels for each batch shape, which takes longer than the batch

    def __init__(
        self,
        name: str,
        tokenizer: PreTrainedTokenizerBase,
        activation: Callable[[np.ndarray], np.ndarray] = raw_logits,
        options: RankerOptions | None = None,
    ):
        require_padding(tokenizer)
        options = options or RankerOptions()
        self.name = name
        self.activation = activation
        self.threads = thread_count(options.threads)
        self.batch_tokens = options.batch_tokens
        self.cache_bytes = options.cache_bytes
        self.long_documents = options.long_documents
        self.reload: Callable[[], tuple[Any, ...]] | None = None  # what `__reduce__` returns, set by `load_ranker`
        self._warned = False
        self._lock = Lock()
        self._calls = 0  # in progress
        self._refusal: str | None = None  # why this process cannot use the ranker
        self.tokenizer = tokenizer
        adapt_after_fork(self)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, which the ranker copies. Change its `model_max_length` only while no call is in progress."""
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._encoder = copy.deepcopy(tokenizer)
        self._encoder(["a"], truncation=True)  # turned on here: calls from several threads find it so
        self.pair_encoder: PairEncoder | None = None
        if not self.long_documents.is_default:
            self.pair_encoder = LongDocumentEncoder(tokenizer, self.long_documents, self.cache_bytes)
        elif self.cache_bytes:
            self.pair_encoder = PairEncoder(tokenizer, self.cache_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the call of `load_ranker` instead of the runtime's objects.

        Raises:
            ModelError: The ranker was created from objects, not by `load_ranker`.
        """
        if self.reload is None:
            raise ModelError(
                "A ranker that was created from a model or graph in memory cannot be pickled or copied",
                value=type(self).__name__,
                expected="a ranker that load_ranker returned, of which a copy can be loaded",
                remedy="save the model to a folder and use load_ranker(folder), or create the ranker in each process",
            )
        return self.reload()

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Raw logits, shape `(len(pairs),)`, float32; empty for no pairs."""
        return self.score_encoded(self.encode(pairs))

    def encode(self, pairs: Sequence[Pair]) -> Encoded:
        """Tokenize pairs for `score_encoded`; the two together are `score`, and one can run while the other does.

        Args:
            pairs: Pairs of query and document.

        Returns:
            `input_ids` and, if the model reads them, `token_type_ids` of each input. An input is a pair, truncated; or,
            if documents are read in chunks, a query with a chunk, and `CHUNKS` has the number of inputs of each pair.
        """
        with self._call():
            return self._encode(pairs)

    def score_encoded(self, encoded: Encoded) -> np.ndarray:
        """Raw logits of pairs that are encoded already.

        Args:
            encoded: As from `encode`. Without `CHUNKS` each input is a pair.

        Returns:
            Shape `(pairs,)`, float32; empty for no pairs.
        """
        if not len(encoded["input_ids"]):
            return np.empty(0, dtype=np.float32)
        with self._call():
            return self._score(encoded, self._batch_indices(encoded))

    def batches(self, pairs: Sequence[Pair]) -> Iterator[dict[str, np.ndarray]]:
        """Yield the inputs of each batch that `score` passes to `forward`; pairs may have several, see `encode`."""
        encoded = self.encode(pairs)
        for indices in self._batch_indices(encoded):
            yield self._padded(encoded, indices)

    def score_in_batches(self, pairs: Sequence[Pair], size: int, padding: float = 1.0) -> np.ndarray:
        """Raw logits, computed in batches of a fixed size, with the pairs in the given order.

        Args:
            pairs: Pairs of query and document.
            size: Pairs in a batch, or inputs if documents are read in chunks.
            padding: Padded length of a batch as a multiple of its longest pair; at most the maximum input length.

        Returns:
            Shape `(len(pairs),)`, float32.
        """
        with self._call():
            encoded = self._encode(pairs)
            indices = np.arange(len(encoded["input_ids"]))
            batches = [indices[start : start + size] for start in range(0, len(indices), size)]
            return self._score(encoded, batches, padding)

    def rank(self, query: str, documents: Sequence[str], top_k: int | None = None) -> list[Ranked]:
        """Documents from best to worst, with the activation of the checkpoint applied to their scores.

        Documents with equal scores keep the given order.
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

    @property
    def on_cpu(self) -> bool:
        """Whether the model runs on the CPU, and so on the cores that tokenize."""
        return True

    def synchronize(self) -> None:  # noqa: B027
        """Wait for the device of the ranker, before a clock is read; the CPU never lags behind."""

    def after_fork(self) -> None:
        """Make the ranker usable in a forked process, or let its calls raise an error; called there first of all."""
        if self._calls:
            self._refusal = "another thread was scoring with it when the process was forked"
        self._lock, self._calls = Lock(), 0

    def check_process(self) -> None:
        """Check that this process can use the ranker.

        Raises:
            ModelError: The process was forked, and the ranker does not work there.
        """
        if self._refusal:
            raise unusable_after_fork(self._refusal)

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Check that this process can use the ranker, and count the call until the block ends."""
        self.check_process()
        with self._lock:
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1

    def _encode(self, pairs: Sequence[Pair]) -> Encoded:
        if not len(pairs):
            return {"input_ids": []}
        self._encoder.model_max_length = self.tokenizer.model_max_length
        encoded: Encoded
        if self.pair_encoder:
            encoded = self.pair_encoder.encode(pairs, self.tokenizer.model_max_length)
        else:
            encoded = encode_pairs(
                self._encoder,
                [query for query, _ in pairs],
                [document for _, document in pairs],
                truncation=True,
                return_attention_mask=False,
            )
        if not self._warned and self.long_documents.is_default:  # otherwise the encoder warns itself
            self._warn_of_cut_queries(pairs, [len(ids) for ids in encoded["input_ids"]])
        return encoded

    def _warn_of_cut_queries(self, pairs: Sequence[Pair], lengths: Sequence[int]) -> None:
        """Log a warning, once, about queries that truncation shortens too: those of more than half of the input."""
        limit = self.tokenizer.model_max_length
        full = [pair for pair, length in zip(pairs, lengths, strict=True) if length >= limit]
        if not full:
            return
        (mask,) = self._encoder([""], [""], truncation=True, return_special_tokens_mask=True)["special_tokens_mask"]
        room = limit - sum(mask)
        prompt = prompts_of(self.tokenizer).text
        longest = nlargest(CHECKED_QUERIES, dict.fromkeys(query for query, _ in full), key=len)
        # A token has at least one byte, so most queries need not be tokenized.
        queries = (query for query in longest if len((prompt + query).encode()) > room // 2)
        tokens = {query: count for query in queries if (count := self._token_count(prompt + query)) > room // 2}
        cut = [query for query, text in full if query in tokens and tokens[query] + self._token_count(text) > room]
        if not cut:
            return
        with self._lock:
            first, self._warned = not self._warned, True
        if first:
            warn_of_cut_query(logger, max(tokens[query] for query in cut), limit)

    def _token_count(self, text: str) -> int:
        """Tokens of a text without special tokens, counted without turning truncation off for other threads."""
        parts = self._encoder(
            [text], truncation=True, return_overflowing_tokens=True, return_special_tokens_mask=True, verbose=False
        )["special_tokens_mask"]
        return sum(mask.count(0) for mask in parts)

    def _batch_indices(self, encoded: Encoded) -> list[np.ndarray]:
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        return list(batches_of(lengths, self.batch_tokens, self.parallel_batches, self.few_shapes))

    def _score(self, encoded: Encoded, batches: Sequence[np.ndarray], padding: float = 1.0) -> np.ndarray:
        scores = np.empty(len(encoded["input_ids"]), dtype=np.float32)
        inputs = (self._padded(encoded, indices, padding) for indices in batches)
        for indices, logits in zip(batches, self.forward(inputs), strict=True):
            scores[indices] = logits
        return combined(scores, encoded[CHUNKS], self.long_documents.combine) if CHUNKS in encoded else scores

    def _padded(self, encoded: Encoded, indices: np.ndarray, padding: float = 1.0) -> dict[str, np.ndarray]:
        rows = [encoded["input_ids"][index] for index in indices]
        longest = max(map(len, rows))
        length = padded_length(int(padding * longest), self.few_shapes)
        shape = len(rows), max(longest, min(length, self.tokenizer.model_max_length))
        batch = {
            "input_ids": np.full(shape, self.tokenizer.pad_token_id, dtype=np.int64),
            "attention_mask": np.zeros(shape, dtype=np.int64),
            "token_type_ids": np.zeros(shape, dtype=np.int64),
        }
        for number, (index, row) in enumerate(zip(indices, rows, strict=True)):
            batch["input_ids"][number, : len(row)] = row
            batch["attention_mask"][number, : len(row)] = 1
            if "token_type_ids" in encoded:
                batch["token_type_ids"][number, : len(row)] = encoded["token_type_ids"][index]
        return batch
