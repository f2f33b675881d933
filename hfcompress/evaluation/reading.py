"""What is read of pairs that are longer than an input: truncated, and in chunks."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from hfcompress.rankers.base import Pair
from hfcompress.rankers.long_documents import CHUNKS, LongDocumentEncoder
from hfcompress.recipe import LongDocuments
from hfcompress.utils.settings import Closed


class ReadingCost(Closed):
    """Tokens that a model reads of pairs with and without chunks.

    Attributes:
        max_length: Longest input in tokens.
        pairs: Number of pairs.
        truncated_pairs: Share of the pairs that are longer than `max_length`.
        truncated_tokens: Share of all tokens that truncation removes.
        long_documents: The setting that it is compared with.
        inputs_per_pair: Inputs of a pair with that setting.
        truncated_mean: Mean tokens of a truncated pair.
        read_mean: Mean tokens of all inputs of a pair with that setting.
    """

    max_length: int
    pairs: int
    truncated_pairs: float
    truncated_tokens: float
    long_documents: LongDocuments
    inputs_per_pair: float
    truncated_mean: float
    read_mean: float

    @property
    def tokens_ratio(self) -> float:
        """Tokens that are read with that setting, as a multiple of those of truncated pairs. Time grows with it."""
        return self.read_mean / self.truncated_mean

    def in_words(self) -> str:
        """The costs in sentences."""
        return (
            f"Truncation at {self.max_length} tokens removes {self.truncated_tokens:.1%} of all tokens. In chunks "
            f"(--long-documents chunk, at most {self.long_documents.max_chunks}) a pair takes "
            f"{self.inputs_per_pair:.2f} inputs, and scoring about {self.tokens_ratio:.1f}x the time."
        )


def reading_cost(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    settings: LongDocuments | None = None,
) -> ReadingCost:
    """Count what is read of pairs.

    Args:
        pairs: Pairs of query and document, at least one.
        tokenizer: Tokenizer of the model.
        max_length: Longest input in tokens.
        settings: Setting to compare truncation with; chunks with its defaults by default.
    """
    settings = settings or LongDocuments(mode="chunk")
    encoder = LongDocumentEncoder(tokenizer, settings)
    encoded = encoder.encode(pairs, max_length)
    whole = encoder.pair_lengths(pairs)
    cut = [min(length, max_length) for length in whole]
    return ReadingCost(
        max_length=max_length,
        pairs=len(pairs),
        truncated_pairs=sum(length > max_length for length in whole) / len(pairs),
        truncated_tokens=1 - sum(cut) / sum(whole),
        long_documents=settings,
        inputs_per_pair=sum(encoded[CHUNKS]) / len(pairs) if CHUNKS in encoded else 1.0,
        truncated_mean=sum(cut) / len(pairs),
        read_mean=sum(map(len, encoded["input_ids"])) / len(pairs),
    )
