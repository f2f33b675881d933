"""First-stage candidates by BM25 (bm25s, Lucene's variant)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hfcompress.data.ranking import Document

K1 = 1.2
B = 0.75


def retrieve(queries: Mapping[str, str], corpus: Mapping[str, Document], k: int) -> dict[str, list[str]]:
    """Return the `k` best documents of each query by BM25 (k1 = 1.2, b = 0.75, English stop words and stemmer).

    Args:
        queries: `{query id: text}`.
        corpus: `{document id: Document}`.
        k: Documents a query; fewer where the corpus is smaller.

    Returns:
        `{query id: [document id]}`, best first.
    """
    import bm25s
    import Stemmer

    if not queries:
        return {}
    identifiers = list(corpus)
    stemmer = Stemmer.Stemmer("english")

    def tokenize(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)

    index = bm25s.BM25(k1=K1, b=B, method="lucene")
    index.index(tokenize([document.content for document in corpus.values()]), show_progress=False)
    hits, _ = index.retrieve(
        tokenize(list(queries.values())), k=min(k, len(identifiers)), n_threads=-1, show_progress=False
    )
    return {query: [identifiers[hit] for hit in row] for query, row in zip(queries, hits, strict=True)}
