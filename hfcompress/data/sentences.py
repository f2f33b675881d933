"""Borders of sentences and words, by rules for each writing system."""

from __future__ import annotations

import re

# Behind these a sentence ends where white space follows: Latin and other alphabets; Arabic and Urdu; Devanagari and
# other scripts of India; Armenian, Ethiopic, Tibetan, Burmese and Khmer.
_SPACED_ENDS = ".!?\u061f\u06d4\u0964\u0965\u0589\u1362\u1367\u0f0d\u104b\u17d4"
# Behind these a sentence ends with or without white space: Chinese and Japanese, full width and half width.
_UNSPACED_ENDS = "\u3002\uff01\uff1f\uff0e\uff61"
SENTENCE_END = re.compile(rf"(?<=[{_SPACED_ENDS}])\s+|(?<=[{_UNSPACED_ENDS}])|\n")

# Thai and Lao have no full stop: white space separates phrases and sentences.
_PHRASE_END = re.compile(r"(?<=[\u0e01-\u0eff])\s+(?=[\u0e01-\u0eff])")
_WORD_START = re.compile(r"(?<=\s)(?=\S)")


def sentence_starts(text: str) -> list[int]:
    """Positions in a text at which a sentence begins behind another one, in ascending order, without the first."""
    ends = {match.end() for rule in (SENTENCE_END, _PHRASE_END) for match in rule.finditer(text)}
    return sorted(end for end in ends if 0 < end < len(text))


def word_starts(text: str) -> list[int]:
    """Positions in a text at which a word begins behind white space, in ascending order."""
    return [match.start() for match in _WORD_START.finditer(text)]
