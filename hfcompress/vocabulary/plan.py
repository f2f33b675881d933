"""VocabularyPlan: which tokens survive, decided by a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from hfcompress.errors import DataError, PlanError
from hfcompress.vocabulary.content import TokenizerContent, content_of, encoder_of, token_ids

Characters = Literal["all", "corpus"]


@dataclass(frozen=True)
class VocabularyPlan:
    """The tokens of a tokenizer that survive.

    Attributes:
        kept: Ids of the surviving tokens in the original tokenizer, ascending; their new ids are their places here.
        counts: How often the corpus holds each of them.
        fingerprint: SHA-256 over the original vocabulary.
        size: Tokens of the original vocabulary.
        texts: Texts in the corpus.
        occurrences: Tokens in the corpus.
        kept_for: How many tokens each reason adds to those before it: `pinned` (special and byte tokens), `corpus`,
            `keep`, `characters`, `closure`.
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
        """Share of the corpus's tokens that survive; the others will be spelled with smaller ones."""
        return sum(self.counts) / self.occurrences

    def to_dict(self) -> dict[str, Any]:
        """Statistics for a report, without the tokens themselves."""
        return {
            "tokens_before": self.size,
            "tokens_after": len(self.kept),
            "kept_for": dict(self.kept_for),
            "texts": self.texts,
            "share_of_occurrences": self.share_of_occurrences,
        }


def plan_vocabulary(
    tokenizer: PreTrainedTokenizerFast,
    texts: Iterable[str],
    min_count: int = 1,
    keep: Collection[str] = (),
    characters: Characters = "all",
    progress: bool = True,
) -> VocabularyPlan:
    """Choose the tokens that `texts` need, and those without which the tokenizer would treat them differently.

    A text whose pieces all survive is cut into the same pieces as before. A piece that does not survive is spelled with
    smaller ones, and with the unknown token where characters have gone too. One exception: where a WordPiece vocabulary
    lacks the single form of a character that occurs inside other tokens, a word that was unknown may become known.

    Args:
        tokenizer: The tokenizer to prune.
        texts: The corpus: documents and queries such as the model will meet.
        min_count: How often a token must occur in the corpus.
        keep: Tokens, or words whose pieces survive whatever the corpus holds.
        characters: Which single characters of the vocabulary survive: all of them, so that every word that could be
            spelled still can, or those that occur in the corpus, which saves thousands of tokens of a multilingual
            vocabulary.
        progress: Whether to show a progress bar.

    Raises:
        ModelError: The tokenizer is not fast, or of an unknown kind.
        DataError: There is no text, or the tokenizer cannot represent a word of `keep`.
        PlanError: `min_count` or `characters` has no meaning.
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
            expected="at least one text that holds something",
            remedy="give the documents and queries that the model will meet",
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
            "A token cannot be asked to occur less than once",
            value=f"min_count={min_count}",
            expected="min_count of 1 or more",
            remedy="give 1 to keep every token of the corpus, or leave the vocabulary as it is",
        )
    if characters not in get_args(Characters):
        raise PlanError(
            "There is no such choice of characters",
            value=characters,
            expected=f"one of {', '.join(get_args(Characters))}",
            remedy="choose one of these",
        )


def _wanted(content: TokenizerContent, encoder: Tokenizer, keep: Collection[str]) -> set[int]:
    """Ids of the tokens in `keep`, and of the pieces of its words at the start of a text and behind a space."""
    wanted: set[int] = set()
    for word in keep:
        pieces = {token for text in (word, f" {word}") for token in encoder.encode(text, add_special_tokens=False).ids}
        spelled = bool(pieces) and content.unknown not in pieces
        if word in content.ids:
            wanted.add(content.ids[word])
        elif not spelled:
            raise DataError(
                "The tokenizer cannot represent a word that is to be kept",
                value=word,
                expected="tokens of the vocabulary, or words that it can spell",
                remedy="remove the word from `keep`",
            )
        if spelled:
            wanted |= pieces
    return wanted


def _characters(content: TokenizerContent, used: Iterable[int] | None) -> set[int]:
    """Ids of all single characters, or of those that occur in the tokens `used`."""
    single = content.characters()
    if used is None:
        return set(single)
    tokens = {id_: token for token, id_ in content.ids.items()}
    alphabet = {character for id_ in used for character in tokens[id_]}
    return {id_ for id_, character in single.items() if character in alphabet}
