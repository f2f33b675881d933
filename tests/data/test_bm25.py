"""BM25 on texts without spaces between words, and on texts without words."""

from __future__ import annotations

import pytest

from hfcompress.data.bm25 import STOP_WORDS, Bm25Index, analyzer_language, retrieve
from hfcompress.data.document import Document


@pytest.mark.parametrize(
    ("query", "texts", "best"),
    [
        ("魚在哪裡游泳？", ["鳥在天上飛。", "魚在水裡游泳。", "狗在街上叫。"], 1),
        ("ネコは眠る", ["犬が吠える", "鳥が飛ぶ", "ネコは一日中眠る"], 2),
        ("ปลาว่ายน้ำ", ["ปลาว่ายน้ำในแม่น้ำ", "นกบินบนฟ้า"], 0),
        ("BERT 模型壓縮", ["the BERT model", "壓縮空氣", "BERT 模型的壓縮方法"], 2),
    ],
    ids=["Chinese", "Japanese", "Thai", "mixed"],
)
def test_scripts_without_spaces(query: str, texts: list[str], best: int) -> None:
    corpus = {str(index): Document("", text) for index, text in enumerate(texts)}
    assert retrieve({"q": query}, corpus, 1) == {"q": [str(best)]}
    scores = Bm25Index(texts).scores(query)
    assert scores.argmax() == best and scores[best] > 0


def test_texts_without_words_are_listed_in_their_order() -> None:
    index = Bm25Index(["a", "?", "the"])
    assert index.retrieve({"q": "cats"}, ["x", "y", "z"], 2) == {"q": ["x", "y"]}
    assert index.scores("cats").tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("language", "query", "text"),
    [
        ("de", "Wohnung mieten", "die gemieteten Wohnungen"),
        ("fr-CA", "national", "les journaux nationaux"),
        ("fi", "talossa", "talo"),
        ("nb", "husene", "hus"),
        ("ru", "книга", "о книгах"),
        ("ar", "كتاب", "قرأت الكتاب"),
        ("hi", "किताबें", "एक किताब"),
    ],
)
def test_words_are_stemmed_in_the_language_of_the_texts(language: str, query: str, text: str) -> None:
    assert Bm25Index([text, "1999"], language).scores(query)[0] > 0
    assert not Bm25Index([text, "1999"]).scores(query).any()
    corpus = {"other": Document("", "1999"), "same": Document("", text)}
    assert retrieve({"q": query}, corpus, 1, language) == {"q": ["same"]}


def test_stop_words_are_those_of_the_language() -> None:
    texts = ["the die", "the dog"]
    assert not Bm25Index(texts, "en").scores("the").any() and Bm25Index(texts, "en").scores("die")[0] > 0
    assert Bm25Index(texts, "de").scores("the").all() and not Bm25Index(texts, "de").scores("die").any()
    assert Bm25Index(texts, "vi").scores("the").all()  # neither stop words nor a stemmer


def test_marks_belong_to_their_words() -> None:
    """Vowel signs and points are no letters in Unicode, but do not end a word."""
    texts = ["यह हिन्दी है", "हन्नी दिन"]
    scores = Bm25Index(texts, "mr").scores("हिन्दी")
    assert scores[0] > 0 and scores[1] == 0
    assert Bm25Index(["שָׁלוֹם עולם", "1999"], "he").scores("שָׁלוֹם").argmax() == 0
    assert Bm25Index(["cafe\u0301 noir", "caf\u00e9"], "mr").scores("cafe\u0301")[1] == 0


@pytest.mark.parametrize("code", sorted(STOP_WORDS))
def test_bm25s_has_these_stop_words(code: str) -> None:
    assert Bm25Index(["1999"], code).scores("1999").all()  # bm25s refuses a language that it does not have


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("", "en"),
        ("de", "de"),
        ("de_AT", "de"),
        ("de, de-CH", "de"),
        ("de, en", "en"),
        ("zh-Hant", "en"),
        ("nn", "no"),
        ("eng", "en"),
        ("ger", "de"),
        ("deu, de", "de"),
        ("zho", "en"),
        ("vi", "vi"),
    ],
)
def test_the_language_that_texts_are_taken_apart_by(language: str, code: str) -> None:
    assert analyzer_language(language) == code
