"""BM25 on texts without spaces between words, and on texts without words."""

from __future__ import annotations

import pytest

from hfcompress.data.bm25 import Bm25Index, retrieve
from hfcompress.data.ranking import Document


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
    corpus = {str(place): Document("", text) for place, text in enumerate(texts)}
    assert retrieve({"q": query}, corpus, 1) == {"q": [str(best)]}
    scores = Bm25Index(texts).scores(query)
    assert scores.argmax() == best and scores[best] > 0


def test_texts_without_words_are_listed_in_their_order() -> None:
    index = Bm25Index(["a", "?", "the"])
    assert index.retrieve({"q": "cats"}, ["x", "y", "z"], 2) == {"q": ["x", "y"]}
    assert index.scores("cats").tolist() == [0, 0, 0]
