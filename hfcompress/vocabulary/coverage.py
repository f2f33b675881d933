"""Coverage: how a pruned tokenizer splits held-out texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from hfcompress.errors import DataError
from hfcompress.vocabulary.content import content_of, encoder_of, token_ids


@dataclass(frozen=True)
class Coverage:
    """Tokenization before and after pruning, without truncation and with special tokens.

    Attributes:
        texts: Number of texts or pairs.
        changed: Share of the texts that are split into other tokens than before.
        unknown_before: Share of unknown tokens before pruning.
        unknown_after: Share of unknown tokens after pruning.
        tokens_before: Mean number of tokens per text before pruning.
        tokens_after: Mean number of tokens per text after pruning.
    """

    texts: int
    changed: float
    unknown_before: float
    unknown_after: float
    tokens_before: float
    tokens_after: float


def coverage(
    before: PreTrainedTokenizerFast,
    after: PreTrainedTokenizerFast,
    texts: Sequence[str] | Sequence[tuple[str, str]],
    progress: bool = True,
) -> Coverage:
    """Compare a tokenizer with its pruned version on held-out texts or pairs of query and document.

    Args:
        before: The original tokenizer.
        after: The pruned tokenizer.
        texts: Texts or pairs that the vocabulary was not chosen from.
        progress: Whether to show a progress bar.

    Raises:
        ModelError: A tokenizer is not fast, or of an unknown kind.
        DataError: There is no text.
    """
    if not texts:
        raise DataError(
            "There is no text to measure coverage on",
            expected="at least one text or pair",
            remedy="give texts that the vocabulary was not chosen from",
        )
    old, new = content_of(before), content_of(after)
    original = {id_: old.ids[token] for token, id_ in new.ids.items()}
    changed = unknown_before = unknown_after = tokens_before = tokens_after = 0
    both = zip(
        token_ids(encoder_of(before), texts, True, "comparing tokens", progress),
        token_ids(encoder_of(after), texts, True, "comparing tokens", False),
        strict=True,
    )
    for ours, theirs in both:
        changed += ours != [original[token] for token in theirs]
        unknown_before += old.count_unknown(ours)
        unknown_after += new.count_unknown(theirs)
        tokens_before += len(ours)
        tokens_after += len(theirs)
    return Coverage(
        texts=len(texts),
        changed=changed / len(texts),
        unknown_before=unknown_before / tokens_before,
        unknown_after=unknown_after / tokens_after,
        tokens_before=tokens_before / len(texts),
        tokens_after=tokens_after / len(texts),
    )
