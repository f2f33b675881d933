"""Tokens for each word or character, by script."""

from __future__ import annotations

import pytest
from transformers import BertTokenizerFast
from vocabulary_samples import tokenizer_of

from hfcompress.data.token_rates import script_of, token_rates


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("three little words", "Latin"), ("привет мир", "Cyrillic"), ("مرحبا بالعالم", "Arabic"), ("שלום", "Hebrew"),
        ("東京大學", "CJK"), ("東京へ行く", "Japanese"), ("안녕하세요", "Hangul"), ("สวัสดี", "Thai"),
        ("यह किताब", "Devanagari"),
        ("BERT 模型的壓縮方法", "CJK"), ("1999 ?!", ""),
    ],
)  # fmt: skip
def test_scripts(text: str, script: str) -> None:
    assert script_of(text) == script


def test_words_and_characters_are_counted_by_script() -> None:
    texts = ["walking nations", "learned actions", "quick reading", "東京大學 字典", "1999"]
    latin, chinese = token_rates([*texts, texts[0]], tokenizer_of("bert"))
    assert (latin.script, latin.unit, latin.texts, latin.units) == ("Latin", "word", 3, 6)
    assert (chinese.script, chinese.unit, chinese.units, chinese.tokens_per_unit) == ("CJK", "character", 6, 1.0)
    assert latin.unknown_share == chinese.unknown_share == 0 and latin.warning() is chinese.warning() is None


def test_a_tokenizer_for_other_languages_is_noticed(tokenizer: BertTokenizerFast) -> None:
    (unknown,) = token_rates(["Überraschung, ganz anders"], tokenizer)
    assert unknown.unknown_share == 1 and "does not know 100%" in (unknown.warning() or "")
    (split,) = token_rates(["สวัสดีครับ"], tokenizer_of("modernbert"))
    assert split.unit == "character" and split.tokens_per_unit > 2 and "tokens" in (split.warning() or "")
