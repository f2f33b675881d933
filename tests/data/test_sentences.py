"""Sentence and word borders in several writing systems."""

from __future__ import annotations

import pytest

from hfcompress.data.sentences import sentence_starts, word_starts

TEXTS = {
    "English": ["One two. ", "Three, four! ", "Five"],
    "Chinese": ["你好。", "世界很大！", "再见"],
    "Japanese": ["雨が降る。", "なぜ？", "知らない"],
    "Arabic": ["كيف الحال؟ ", "بخير. ", "شكرا"],
    "Urdu": ["یہ کتاب ہے۔ ", "اچھی ہے"],
    "Hindi": ["यह किताब है। ", "अच्छी है"],
    "Hebrew": ["שלום. ", "מה נשמע? ", "טוב"],
    "Thai": ["ฝนตก ", "ฉันอยู่บ้าน ", "วันนี้"],
    "lines": ["a heading\n", "its text"],
}


@pytest.mark.parametrize("name", TEXTS)
def test_sentences_begin_behind_the_ends_of_others(name: str) -> None:
    parts = TEXTS[name]
    text, begin, expected = "".join(parts), 0, []
    for part in parts[:-1]:
        begin += len(part)
        expected.append(begin)
    assert sentence_starts(text) == expected


def test_numbers_and_names_are_not_cut() -> None:
    assert sentence_starts("version 3.14 of a.b. is out") == [21]
    assert sentence_starts("") == [] and sentence_starts("One. ") == []


def test_words_begin_behind_white_space() -> None:
    assert word_starts("ab  cd\nef ") == [4, 7]
    assert word_starts("你好世界") == []
