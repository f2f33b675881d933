"""BM25 as a ranker: the scores of the first stage, for every document of the corpus."""

from __future__ import annotations

import numpy as np
import pytest

from hfcompress.data.bm25 import retrieve
from hfcompress.data.document import Document
from hfcompress.errors import DataError
from hfcompress.rankers.base import Ranker
from hfcompress.rankers.bm25 import Bm25Ranker

CORPUS = {
    "d1": Document("Cats", "A cat sleeps for most of the day."),
    "d2": Document("", "Dogs bark at strangers in the street."),
    "d3": Document("Birds", "A swallow flies south in the autumn."),
    "d4": Document("", "The cat hunts birds in the garden."),
    "d5": Document("", "Dogs bark at strangers in the street."),
}
TEXTS = [document.content for document in CORPUS.values()]


@pytest.fixture(scope="module")
def ranker() -> Bm25Ranker:
    return Bm25Ranker(CORPUS)


def test_it_orders_as_the_first_stage_does(ranker: Bm25Ranker) -> None:
    assert isinstance(ranker, Ranker)
    query = "sleeping cats and birds"
    listed = retrieve({"q": query}, CORPUS, 3)["q"]
    assert [list(CORPUS)[hit.position] for hit in ranker.rank(query, TEXTS, top_k=3)] == listed
    scores = ranker.score([(query, text) for text in TEXTS])
    assert scores.dtype == np.float32 and scores.shape == (5,)


def test_documents_that_share_no_word_score_0(ranker: Bm25Ranker) -> None:
    scores = ranker.score([("a sleeping cat", text) for text in TEXTS])
    assert scores[0] > scores[3] > 0 and scores[[1, 2, 4]].tolist() == [0, 0, 0]
    for query in ("unheard", "the of", ""):
        assert ranker.score([(query, text) for text in TEXTS]).tolist() == [0.0] * 5
    assert [hit.position for hit in ranker.rank("unheard", TEXTS)] == [0, 1, 2, 3, 4]


def test_pairs_of_several_queries_in_any_order(ranker: Bm25Ranker) -> None:
    pairs = [("cat", TEXTS[0]), ("barking dog", TEXTS[1]), ("cat", TEXTS[3]), ("barking dog", TEXTS[4])]
    alone = [float(ranker.score([pair])[0]) for pair in pairs]
    assert ranker.score(pairs).tolist() == alone and min(alone) > 0
    assert alone[1] == alone[3]  # the same text twice in the corpus
    assert ranker.score([]).shape == (0,)


def test_a_document_of_another_corpus(ranker: Bm25Ranker) -> None:
    with pytest.raises(DataError, match=r"not in its corpus.*'Fish swim'"):
        ranker.score([("fish", "Fish swim")])
