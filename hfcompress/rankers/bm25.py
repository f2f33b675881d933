"""BM25 as a ranker, which can be one of several teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from hfcompress.data.bm25 import ENGLISH, K1, B, Bm25Index, analyzer_language
from hfcompress.data.document import Document
from hfcompress.data.score_text import text_without_score
from hfcompress.errors import DataError
from hfcompress.rankers.base import Pair, Ranked
from hfcompress.recipe import ScoreText


class Bm25Ranker:
    """Scores documents of a corpus with BM25, as the first stage does.

    A document that shares no word with the query has score 0.

    Args:
        corpus: Documents by id. They determine the document frequencies, and only they can be scored.
        score_text: Format of the scores in the document texts, if there are any; they are ignored here.
        language: Language of the texts, as in `RankingData`.
    """

    def __init__(
        self, corpus: Mapping[str, Document], score_text: ScoreText | None = None, language: str = ENGLISH
    ) -> None:
        texts = [document.content for document in corpus.values()]
        self.name = f"bm25 (k1 {K1}, b {B}, {analyzer_language(language)})"
        self._index = Bm25Index(texts, language)
        self._indices = {text: index for index, text in enumerate(texts)}
        self._score_text = score_text

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """BM25 scores, shape `(len(pairs),)`, float32; empty for no pairs.

        Raises:
            DataError: A document is not in the corpus.
        """
        parts = []
        for query, group in groupby(pairs, key=lambda pair: pair[0]):
            parts.append(self._index.scores(query)[[self._index_of(document) for _, document in group]])
        return np.concatenate(parts).astype(np.float32) if parts else np.empty(0, dtype=np.float32)

    def rank(self, query: str, documents: Sequence[str], top_k: int | None = None) -> list[Ranked]:
        """Documents from best to worst; those with equal scores keep the given order."""
        scores = self.score([(query, document) for document in documents])
        return [Ranked(int(index), float(scores[index])) for index in np.argsort(-scores, kind="stable")[:top_k]]

    def _index_of(self, document: str) -> int:
        if self._score_text:
            document = text_without_score(document, self._score_text)
        if document not in self._indices:
            raise DataError(
                "BM25 cannot score a document that is not in its corpus",
                value=document,
                expected="a document of the corpus of this ranker",
                remedy="create the ranker with the corpus that contains the documents",
            )
        return self._indices[document]
