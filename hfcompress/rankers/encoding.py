"""Pairs encoded from texts that are tokenized one by one, and a cache of tokenized documents."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from threading import Lock
from typing import Literal, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from hfcompress.models.prompts import prompts_of

Side = Literal["left", "right"]

ENTRY_BYTES = 320  # of Python objects for each document in the cache, besides its token ids


class CacheCounts(NamedTuple):
    """Use of a cache of tokenized documents.

    Attributes:
        hits: Documents that were found since the cache was created.
        misses: Documents that were not found.
        entries: Documents in the cache.
        bytes: Memory of the cache.
    """

    hits: int
    misses: int
    entries: int
    bytes: int

    @property
    def hit_rate(self) -> float:
        """Share of documents that were found; 0 before the first one."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


class DocumentCache:
    """Token ids of documents by their texts, for one tokenizer; several threads may use it at the same time.

    The document that was not used for the longest time is dropped first.

    Args:
        max_bytes: Largest memory of all entries; 0 keeps none.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._entries: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._lock = Lock()
        self._hits = self._misses = self._bytes = 0

    def get(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """Token ids by key, or None for those that are not in the cache."""
        with self._lock:
            found = [self._entries.get(key) for key in keys]
            for key, ids in zip(keys, found, strict=True):
                if ids is not None:
                    self._entries.move_to_end(key)
            hits = sum(ids is not None for ids in found)
            self._hits += hits
            self._misses += len(found) - hits
        return found

    def put(self, entries: Mapping[bytes, np.ndarray]) -> None:
        """Add documents, and drop others until all fit."""
        with self._lock:
            for key, ids in entries.items():
                size = ids.nbytes + ENTRY_BYTES
                if size > self.max_bytes or key in self._entries:
                    continue
                self._entries[key] = ids
                self._bytes += size
            while self._bytes > self.max_bytes:
                _, dropped = self._entries.popitem(last=False)
                self._bytes -= dropped.nbytes + ENTRY_BYTES

    def counts(self) -> CacheCounts:
        """Hits, misses and memory until now."""
        with self._lock:
            return CacheCounts(self._hits, self._misses, len(self._entries), self._bytes)


class _Template(NamedTuple):
    """Special tokens of a pair, before, between and behind its texts, and the token types of all five parts."""

    specials: tuple[np.ndarray, np.ndarray, np.ndarray]
    types: tuple[np.ndarray, int, np.ndarray, int, np.ndarray]


class PairEncoder:
    """Encodes pairs as their tokenizer does, but tokenizes each text once: queries per call, documents per cache.

    The `tokenizers` library tokenizes both texts of a pair on their own, truncates the longer one, and joins them with
    special tokens. This class does the last two steps itself, so its token ids are those of the tokenizer.

    Args:
        tokenizer: Fast tokenizer, which is copied; its default prompt is prepended to each query.
        cache_bytes: Memory of the cache of documents; 0 for none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, cache_bytes: int = 0):
        self.cache = DocumentCache(cache_bytes)
        self._prompt = prompts_of(tokenizer).text
        self._side: Side = "left" if tokenizer.truncation_side == "left" else "right"
        self._with_types = "token_type_ids" in tokenizer.model_input_names
        self._backend = copy.deepcopy(tokenizer.backend_tokenizer)
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = tokenizer.split_special_tokens
        self._template = self._read_template()
        self.special_tokens = sum(map(len, self._template.specials))

    def encode(self, pairs: Sequence[tuple[str, str]], max_length: int) -> dict[str, list[np.ndarray]]:
        """Encode pairs, truncated as by the tokenizer.

        Args:
            pairs: Pairs of query and document.
            max_length: Maximum input length in tokens.

        Returns:
            `input_ids`, and `token_type_ids` if the model reads them: an int32 array of shape `(tokens,)` for each
            pair.
        """
        return self.joined(self._tokenized(pairs), max_length, self._side)

    def pair_lengths(self, pairs: Sequence[tuple[str, str]]) -> list[int]:
        """Tokens of pairs with special tokens, not truncated."""
        return [len(query) + document.shape[-1] + self.special_tokens for query, document in self._tokenized(pairs)]

    def query(self, text: str) -> np.ndarray:
        """Token ids of a query behind the default prompt, without special tokens, int32 of shape `(tokens,)`."""
        return self._by_text([text])[text]

    def documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of documents, without special tokens and not truncated, each int32 of shape `(tokens,)`."""
        if self.cache.max_bytes <= 0:
            return self._tokenize_documents(texts)
        keys = [blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest() for text in texts]
        found = self.cache.get(keys)
        missing = {key: text for key, text, ids in zip(keys, texts, found, strict=True) if ids is None}
        new = dict(zip(missing, self._tokenize_documents(list(missing.values())), strict=True))
        self.cache.put(new)
        return [new[key] if ids is None else ids for key, ids in zip(keys, found, strict=True)]

    def joined(
        self, texts: Sequence[tuple[np.ndarray, np.ndarray]], max_length: int, side: Side | None = None
    ) -> dict[str, list[np.ndarray]]:
        """Join tokenized queries and documents to inputs of the model.

        Args:
            texts: Token ids of query and document of each pair.
            max_length: Maximum input length in tokens.
            side: Side that truncation removes tokens from; by default the tokenizer's.

        Returns:
            As for `encode`.
        """
        room = max_length - self.special_tokens
        kept = [_truncated(query, document, room, side or self._side) for query, document in texts]
        before, between, behind = self._template.specials
        encoded = {"input_ids": [np.concatenate((before, query, between, doc, behind)) for query, doc in kept]}
        if self._with_types:
            encoded["token_type_ids"] = [self._types(len(query), len(document)) for query, document in kept]
        return encoded

    def _types(self, query: int, document: int) -> np.ndarray:
        before, first, between, second, behind = self._template.types
        parts = (before, np.full(query, first, np.int32), between, np.full(document, second, np.int32), behind)
        return np.concatenate(parts)

    def _tokenized(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Query and document of each pair, each text tokenized once."""
        queries = self._by_text([query for query, _ in pairs])
        documents = self.documents([document for _, document in pairs])
        return [(queries[query], document) for (query, _), document in zip(pairs, documents, strict=True)]

    def _by_text(self, queries: Sequence[str]) -> dict[str, np.ndarray]:
        once = list(dict.fromkeys(queries))
        return dict(zip(once, self._tokenize([self._prompt + query for query in once]), strict=True))

    def _tokenize(self, texts: Sequence[str]) -> list[np.ndarray]:
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(each.ids, dtype=np.int32) for each in encodings]

    def _tokenize_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        return self._tokenize(texts)

    def _read_template(self) -> _Template:
        """Read the special tokens and types off an encoded pair of any text that has tokens."""
        texts = ("a", *self._backend.get_vocab())
        encoding = next(each for each in (self._backend.encode(text, text) for text in texts) if 1 in each.sequence_ids)
        owner = encoding.sequence_ids  # None for special tokens, else 0 or 1
        ids, types = (np.array(values, dtype=np.int32) for values in (encoding.ids, encoding.type_ids))
        first, second = ([index for index, each in enumerate(owner) if each == number] for number in (0, 1))
        parts = [slice(0, first[0]), slice(first[-1] + 1, second[0]), slice(second[-1] + 1, None)]
        before, between, behind = (ids[part] for part in parts)
        return _Template(
            (before, between, behind),
            (types[parts[0]], int(types[first[0]]), types[parts[1]], int(types[second[0]]), types[parts[2]]),
        )


def _truncated(query: np.ndarray, document: np.ndarray, room: int, side: Side) -> tuple[np.ndarray, np.ndarray]:
    """Truncate the longer text until both fit, by the strategy `longest_first` of the `tokenizers` library."""
    if len(query) + len(document) <= room:
        return query, document
    shorter = min(len(query), len(document))
    longer = shorter if shorter > room else max(shorter, room - shorter)
    if shorter + longer > room:
        shorter, longer = room // 2, room // 2 + room % 2
    sizes = (longer, shorter) if len(query) > len(document) else (shorter, longer)
    first, second = (_cut(ids, size, side) for ids, size in zip((query, document), sizes, strict=True))
    return first, second


def _cut(ids: np.ndarray, size: int, side: Side) -> np.ndarray:
    return ids[:size] if side == "right" else ids[max(0, len(ids) - size) :]
