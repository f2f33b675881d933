"""VocabularyPlan: which tokens to keep for a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from hfcompress.errors import DataError, PlanError
from hfcompress.vocabulary.content import TokenizerContent, content_of, encoder_of, token_ids

Characters = Literal["all", "corpus"]


@dataclass(frozen=True)
class VocabularyPlan:
    """The tokens of a tokenizer to keep.

    Attributes:
        kept: Ids of the kept tokens in the original tokenizer, ascending; the new id of a token is its index here.
        counts: Occurrences of each kept token in the corpus.
        fingerprint: SHA-256 over the original vocabulary and what the tokenizer does; see `TokenizerContent`.
        size: Number of tokens in the original vocabulary.
        texts: Number of texts in the corpus.
        occurrences: Number of tokens in the corpus.
        kept_for: Number of tokens that each reason adds to the previous ones: `pinned` (special and byte tokens),
            `corpus`, `keep`, `characters`, `closure`.
    """

    kept: tuple[int, ...]
    counts: tuple[int, ...]
    fingerprint: str
    size: int
    texts: int
    occurrences: int
    kept_for: Mapping[str, int]

    @property
    def share_of_occurrences(self) -> float:
        """Share of the tokens in the corpus that are kept; the others will be split into smaller tokens."""
        return sum(self.counts) / self.occurrences


def plan_vocabulary(
    tokenizer: PreTrainedTokenizerFast,
    texts: Iterable[str],
    min_count: int = 1,
    keep: Collection[str] = (),
    characters: Characters = "all",
    progress: bool = True,
) -> VocabularyPlan:
    """Choose the tokens that occur in `texts`, and those needed to split these texts as before.

    A text whose tokens are all kept is split as before. A removed token is replaced by smaller ones, and by the unknown
    token where characters were removed too. One exception: if a WordPiece vocabulary lacks the single-character form of
    a character that occurs inside other tokens, a word that was unknown may become known.

    Args:
        tokenizer: The tokenizer to prune.
        texts: The corpus: documents and queries like those that the model will score.
        min_count: Minimum number of occurrences of a token in the corpus.
        keep: Tokens, or words whose tokens are kept even if the corpus lacks them.
        characters: Which single-character tokens to keep: `all`, so that every word that could be represented still
            can, or those of the `corpus`, which saves thousands of tokens of a multilingual vocabulary.
        progress: Whether to show a progress bar.

    Raises:
        ModelError: The tokenizer is not fast, or of an unknown kind.
        DataError: There is no text, or the tokenizer cannot represent a word of `keep`.
        PlanError: `min_count` is below 1, or `characters` is unknown.
    """
    _check_settings(min_count, characters)
    content, encoder = content_of(tokenizer), encoder_of(tokenizer)
    counts: Counter[int] = Counter()
    number = 0
    for ids in token_ids(encoder, texts, False, "counting tokens", progress):
        counts.update(ids)
        number += 1
    if not counts:
        raise DataError(
            "There is no text to choose a vocabulary from",
            value=f"{number} texts",
            expected="at least one text that is not empty",
            remedy="give documents and queries like those that the model will score",
        )
    reasons = {
        "pinned": content.pinned(),
        "corpus": {token for token, count in counts.items() if count >= min_count},
        "keep": _wanted(content, encoder, keep),
        "characters": _characters(content, None if characters == "all" else counts),
    }
    kept: set[int] = set()
    kept_for = {}
    for reason, tokens in reasons.items():
        kept_for[reason] = len(tokens - kept)
        kept |= tokens
    closed = content.closure(kept)
    return VocabularyPlan(
        kept=tuple(sorted(closed)),
        counts=tuple(counts[token] for token in sorted(closed)),
        fingerprint=content.fingerprint,
        size=len(content.ids),
        texts=number,
        occurrences=counts.total(),
        kept_for={**kept_for, "closure": len(closed - kept)},
    )


def _check_settings(min_count: int, characters: str) -> None:
    if min_count < 1:
        raise PlanError(
            "The minimum count of a token is too small",
            value=f"min_count={min_count}",
            expected="min_count of 1 or more",
            remedy="set it to 1 to keep every token of the corpus, or do not prune the vocabulary",
        )
    if characters not in get_args(Characters):
        raise PlanError(
            "The choice of characters is unknown",
            value=characters,
            expected=f"one of {', '.join(get_args(Characters))}",
            remedy="choose one of these",
        )


def _wanted(content: TokenizerContent, encoder: Tokenizer, keep: Collection[str]) -> set[int]:
    """Ids of the tokens in `keep`, and of the tokens of its words at the start of a text and after a space."""
    wanted: set[int] = set()
    for word in keep:
        pieces = {token for text in (word, f" {word}") for token in encoder.encode(text, add_special_tokens=False).ids}
        known = bool(pieces) and content.unknown not in pieces
        if word in content.ids:
            wanted.add(content.ids[word])
        elif not known:
            raise DataError(
                "The tokenizer cannot represent a word that is to be kept",
                value=word,
                expected="tokens of the vocabulary, or words that it can represent",
                remedy="remove the word from `keep`",
            )
        if known:
            wanted |= pieces
    return wanted


def _characters(content: TokenizerContent, used: Iterable[int] | None) -> set[int]:
    """Ids of all single-character tokens, or of those whose character occurs in the tokens `used`."""
    single = content.characters()
    if used is None:
        return set(single)
    tokens = {id_: token for token, id_ in content.ids.items()}
    alphabet = {character for id_ in used for character in tokens[id_]}
    return {id_ for id_, character in single.items() if character in alphabet}
