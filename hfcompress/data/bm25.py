"""First-stage candidates by BM25 (bm25s, Lucene's variant)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hfcompress.data.ranking import Document

K1 = 1.2
B = 0.75
# Scripts that are written without spaces between words: Chinese and Japanese, Thai, Lao, Burmese, Khmer.
_UNSPACED = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+"
)


def retrieve(queries: Mapping[str, str], corpus: Mapping[str, Document], k: int) -> dict[str, list[str]]:
    """Return the `k` best documents of each query by BM25 (k1 = 1.2, b = 0.75, English stop words and stemmer).

    Text of scripts without spaces, such as Chinese, is taken as pairs of neighbouring characters.

    Args:
        queries: `{query id: text}`.
        corpus: `{document id: Document}`.
        k: Documents a query; fewer where the corpus is smaller.

    Returns:
        `{query id: [document id]}`, best first.
    """
    return Bm25Index([document.content for document in corpus.values()]).retrieve(queries, list(corpus), k)


class Bm25Index:
    """An index by which texts are retrieved and scored; the first stage, and BM25 as a teacher.

    Args:
        texts: Texts of the documents.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s
        import Stemmer

        self._bm25s = bm25s
        self._stemmer = Stemmer.Stemmer("english")
        self.size = len(texts)
        self._index = bm25s.BM25(k1=K1, b=B, method="lucene")
        tokens = self._tokens(texts)
        self._wordless = not any(tokens.ids)  # stop words, single letters: bm25s cannot index nothing
        if not self._wordless:
            self._index.index(tokens, show_progress=False)

    def retrieve(self, queries: Mapping[str, str], identifiers: Sequence[str], k: int) -> dict[str, list[str]]:
        """Ids of the `k` best documents of each query, best first; `identifiers` are those of the texts."""
        if not queries:
            return {}
        if self._wordless:
            return {query: list(identifiers[:k]) for query in queries}
        tokens = self._tokens(list(queries.values()))
        hits, _ = self._index.retrieve(tokens, k=min(k, self.size), n_threads=-1, show_progress=False)
        return {query: [identifiers[hit] for hit in row] for query, row in zip(queries, hits, strict=True)}

    def scores(self, query: str) -> np.ndarray:
        """Score of every document, shape `(documents,)`, float32; 0 where it shares no word with the query."""
        (words,) = self._bm25s.tokenize(
            [_spaced(query)], stopwords="en", stemmer=self._stemmer, return_ids=False, show_progress=False
        )
        if not words or self._wordless:
            return np.zeros(self.size, dtype=np.float32)
        return self._index.get_scores(words)

    def _tokens(self, texts: Sequence[str]) -> Any:
        return self._bm25s.tokenize(
            [_spaced(text) for text in texts], stopwords="en", stemmer=self._stemmer, show_progress=False
        )


def _spaced(text: str) -> str:
    """The text with every run of an unspaced script as overlapping pairs of characters, which are then its words."""
    return _UNSPACED.sub(lambda run: f" {' '.join(_pairs(run.group()))} ", text)


def _pairs(run: str) -> list[str]:
    return [run[place : place + 2] for place in range(max(1, len(run) - 1))]
