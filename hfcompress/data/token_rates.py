"""Tokens of a tokenizer for each word of a language, or for each character where words are not separated."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Literal

from transformers import PreTrainedTokenizerBase

from hfcompress.data.bm25 import UNSPACED
from hfcompress.utils.settings import Closed

TEXTS = 2_000
CHARACTERS = 1_000  # of a text
FEW_TEXTS = 0.01  # of all: scripts of fewer texts are left out
MANY_TOKENS = 3.0  # of a word, or 2 of a character: a tokenizer that was not made for the language
MANY_UNKNOWN = 0.05
JAPANESE = frozenset(["HIRAGANA", "KATAKANA"])


class TokenRate(Closed):
    """Tokens of texts in one script.

    Attributes:
        script: Its name in Unicode, e.g. `Latin`, `Arabic` or `CJK`; `Japanese` for texts with kana.
        unit: `word`, or `character` for scripts without spaces between words.
        texts: Number of texts.
        units: Number of words or characters.
        tokens_per_unit: Tokens for each of them.
        unknown_share: Share of the tokens that stand for text that the tokenizer does not know.
    """

    script: str
    unit: Literal["word", "character"]
    texts: int
    units: int
    tokens_per_unit: float
    unknown_share: float

    def warning(self) -> str | None:
        """What is wrong with this tokenizer for this script, in a sentence; None for nothing."""
        many = MANY_TOKENS if self.unit == "word" else MANY_TOKENS - 1
        if self.unknown_share > MANY_UNKNOWN:
            return f"the tokenizer does not know {self.unknown_share:.0%} of the tokens of {self.script} text"
        if self.tokens_per_unit > many:
            return (
                f"a {self.unit} of {self.script} text has {self.tokens_per_unit:.1f} tokens: the tokenizer was made "
                "for other languages, and reads less of each document"
            )
        return None


def token_rates(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> list[TokenRate]:
    """Count the tokens of texts by their script, the most frequent script first.

    Args:
        texts: Texts; the first `TEXTS` different ones are read, up to `CHARACTERS` of each.
        tokenizer: The tokenizer.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    chosen = list(dict.fromkeys(text[:CHARACTERS] for text in texts))[:TEXTS]
    for text in chosen:
        if script := script_of(text):
            groups[script].append(text)
    kept = {script: group for script, group in groups.items() if len(group) >= FEW_TEXTS * len(chosen)}
    return [_rate(script, kept[script], tokenizer) for script in sorted(kept, key=lambda each: -len(kept[each]))]


def script_of(text: str) -> str:
    """The script of most letters of a text, by the names of Unicode; empty without letters."""
    names = Counter(unicodedata.name(letter, "").partition(" ")[0] for letter in text if letter.isalpha())
    if not names:
        return ""
    name = names.most_common(1)[0][0]
    if name in JAPANESE or (name == "CJK" and names.keys() & JAPANESE):
        return "Japanese"
    return name if name == "CJK" else name.capitalize()


def _rate(script: str, texts: list[str], tokenizer: PreTrainedTokenizerBase) -> TokenRate:
    letters = [letter for text in texts for letter in text if letter.isalpha()]
    unspaced = sum(bool(UNSPACED.match(letter)) for letter in letters) > len(letters) / 2
    units = sum(len("".join(text.split())) if unspaced else len(text.split()) for text in texts)
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    tokens = sum(map(len, encoded))
    unknown = sum(ids.count(tokenizer.unk_token_id) for ids in encoded) if tokenizer.unk_token_id is not None else 0
    return TokenRate(
        script=script,
        unit="character" if unspaced else "word",
        texts=len(texts),
        units=units,
        tokens_per_unit=tokens / units,
        unknown_share=unknown / tokens if tokens else 0.0,
    )
