"""Encoding of pairs whose documents are read in chunks, or up to a number of tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from hfcompress.rankers.chunks import QUERY_SHARE, borders, chunk_spans, query_room, shortened_query, title_size
from hfcompress.rankers.encoding import PairEncoder, Side
from hfcompress.recipe import LongDocuments
from hfcompress.utils.log import warn_once

logger = logging.getLogger(__name__)

CHUNKS = "chunks"  # of encoded pairs: the number of inputs of each pair


class ReadPair(NamedTuple):
    """What is read of a pair.

    Attributes:
        inputs: Token ids of query and document, or of the query and each chunk.
        complete: Whether these have all tokens of both texts.
    """

    inputs: list[tuple[np.ndarray, np.ndarray]]
    complete: bool


class LongDocumentEncoder(PairEncoder):
    """A `PairEncoder` with a setting for long documents. A pair that fits into one input has that of a `PairEncoder`.

    Tokenized documents, also those in the cache, have the shape `(2, tokens)` if they are read in chunks: token ids,
    and what begins with each token, see `borders`.

    Args:
        tokenizer: As for `PairEncoder`.
        settings: The setting.
        cache_bytes: As for `PairEncoder`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: LongDocuments, cache_bytes: int = 0):
        super().__init__(tokenizer, cache_bytes)
        self.settings = settings
        self._warned = False

    @property
    def chunks(self) -> bool:
        """Whether documents are read in chunks."""
        return self.settings.chunks

    def encode(self, pairs: Sequence[tuple[str, str]], max_length: int) -> dict[str, list[Any]]:
        """Encode pairs.

        Args:
            pairs: Pairs of query and document.
            max_length: Maximum input length in tokens.

        Returns:
            `input_ids`, and `token_type_ids` if the model reads them: an int32 array of shape `(tokens,)` for each
            input. With chunks also `CHUNKS`, the number of inputs of each pair, whose inputs are consecutive.
        """
        return self.encode_read([self.read(*texts, max_length) for texts in self._tokenized(pairs)], max_length)

    def read_lengths(self, pairs: Sequence[tuple[str, str]], max_length: int) -> list[int]:
        """Tokens that are read of each pair, in all of its inputs, with special tokens; arguments of `encode`."""
        encoded = self.encode(pairs, max_length)
        lengths = iter(map(len, encoded["input_ids"]))
        return [sum(islice(lengths, inputs)) for inputs in encoded.get(CHUNKS, [1] * len(pairs))]

    def encode_read(self, pairs: Sequence[ReadPair], max_length: int, side: Side | None = None) -> dict[str, list[Any]]:
        """Encode what is read of each pair, with the result of `encode`.

        Args:
            pairs: What is read of each pair, as from `read`.
            max_length: Maximum input length in tokens.
            side: Side that truncation removes tokens from; by default the tokenizer's. No chunk is truncated.
        """
        inputs = [each for pair in pairs for each in pair.inputs]
        encoded: dict[str, list[Any]] = dict(self.joined(inputs, max_length, side))
        if self.chunks:
            encoded[CHUNKS] = [len(pair.inputs) for pair in pairs]
        return encoded

    def read(
        self,
        query: np.ndarray,
        document: np.ndarray,
        max_length: int,
        max_tokens: int | None = None,
        max_chunks: int | None = None,
    ) -> ReadPair:
        """Choose what is read of a pair.

        Args:
            query: Token ids of the query.
            document: The tokenized document, as from `documents`.
            max_length: Maximum input length in tokens.
            max_tokens: Tokens of the document that are read at most, if that is less than the setting says.
            max_chunks: Chunks at most, if that is less than the setting says.
        """
        settings, tokens = self.settings, document.shape[-1]
        document = document[..., : _least(settings.max_tokens_per_doc, max_tokens)]
        room = max_length - self.special_tokens
        if not self.chunks:
            complete = document.shape[-1] == tokens and len(query) + tokens <= room
            if len(query) > room // 2 and len(query) + document.shape[-1] > room and not self._warned:
                self._warned = True
                warn_of_cut_query(logger, len(query), max_length)
            return ReadPair([(query, document)], complete)
        ids, levels = document
        if len(query) + len(ids) <= room:
            return ReadPair([(query, ids)], len(ids) == tokens)
        short = shortened_query(query, query_room(room))
        if len(short) < len(query) and not self._warned:
            self._warned = True
            warn_once(
                logger,
                f"A query of {len(query)} tokens is longer than {QUERY_SHARE:.0%} of the input of {max_length} tokens: "
                "its middle is left out where a document is read in chunks",
            )
        first, size = settings.combine == "first", room - len(short)
        title = title_size(levels, min(settings.title_tokens, size // 2))
        text = ids[title:]
        spans = chunk_spans(levels[title:], size - title, 0 if first else settings.overlap)
        kept = spans[:1] if first else _kept(spans, _least(settings.max_chunks, max_chunks))
        complete = len(short) == len(query) and len(ids) == tokens and len(kept) == len(spans)
        return ReadPair([(short, np.concatenate((ids[:title], text[begin:end]))) for begin, end in kept], complete)

    def _tokenize_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        if not self.chunks:
            return self._tokenize(texts)
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [
            np.stack((np.array(each.ids, dtype=np.int32), borders(text, each.offsets)))
            for text, each in zip(texts, encodings, strict=True)
        ]


def _kept(spans: list[tuple[int, int]], most: int | None) -> list[tuple[int, int]]:
    """The chunks that are read: of too many the first, the last and evenly spaced ones.

    The first and the last passage are also those that Dai and Callan always keep (Deeper Text Understanding for IR with
    Contextual Neural Language Modeling, 2019).
    """
    if most is None or len(spans) <= most:
        return spans
    return [spans[index] for index in np.linspace(0, len(spans) - 1, most).round().astype(int)]


def _least(*limits: int | None) -> int | None:
    """The smallest of the limits that are set."""
    return min((limit for limit in limits if limit is not None), default=None)


def warn_of_cut_query(logger: logging.Logger, tokens: int, max_length: int) -> None:
    """Log a warning, once, about a query that truncation shortens, as it does with the longer text of a pair."""
    warn_once(
        logger,
        f"A query of {tokens} tokens is longer than half of the input of {max_length} tokens, and is truncated itself "
        "beside a document that does not fit; with chunks (long_documents: chunk) it would keep its tokens up to "
        f"{QUERY_SHARE:.0%}",
    )
