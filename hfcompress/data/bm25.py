"""First-stage candidates by BM25 (bm25s, Lucene's variant)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hfcompress.data.ranking import Document

if TYPE_CHECKING:
    from Stemmer import Stemmer

K1 = 1.2
B = 0.75
ENGLISH = "en"
# Languages for which bm25s has stop words.
STOP_WORDS = frozenset(["da", "de", "en", "es", "fr", "it", "ko", "nl", "no", "pt", "ru", "sv", "tr"])
# Other codes of ISO 639 for these and for the languages below.
ALIASES = {
    "nb": "no", "nn": "no", "nor": "no", "nob": "no", "nno": "no", "dan": "da", "deu": "de", "ger": "de", "eng": "en",
    "spa": "es", "fra": "fr", "fre": "fr", "ita": "it", "kor": "ko", "nld": "nl", "dut": "nl", "por": "pt", "rus": "ru",
    "swe": "sv", "tur": "tr", "jpn": "ja", "khm": "km", "lao": "lo", "mya": "my", "bur": "my", "tha": "th", "zho": "zh",
    "chi": "zh",
}  # fmt: skip
# Languages whose texts are in scripts without spaces: words with spaces around them are mostly English there.
WITHOUT_SPACES = frozenset(["ja", "km", "lo", "my", "th", "zh"])
# Scripts that are written without spaces between words: Chinese and Japanese, Thai, Lao, Burmese, Khmer.
_UNSPACED = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+"
)


def retrieve(
    queries: Mapping[str, str], corpus: Mapping[str, Document], k: int, language: str = ENGLISH
) -> dict[str, list[str]]:
    """Return the `k` best documents of each query by BM25 (k1 = 1.2, b = 0.75, stop words and stemmer of the language).

    Text of scripts without spaces, such as Chinese, is taken as pairs of neighbouring characters.

    Args:
        queries: `{query id: text}`.
        corpus: `{document id: Document}`.
        k: Documents a query; fewer where the corpus is smaller.
        language: Of the texts, as in `RankingData`.

    Returns:
        `{query id: [document id]}`, best first.
    """
    return Bm25Index([document.content for document in corpus.values()], language).retrieve(queries, list(corpus), k)


def analysed_as(language: str) -> str:
    """The one language whose words texts are taken apart by.

    Args:
        language: ISO 639 codes as in `RankingData`, e.g. `de`, `deu`, `en, fr` or `zh-Hant`.

    Returns:
        A code without region: English where none or several are named, or where texts have no spaces between words.
    """
    plain = [code.strip().lower().replace("_", "-").partition("-")[0] for code in language.split(",")]
    codes = {ALIASES.get(code, code) for code in plain}
    code = codes.pop() if len(codes) == 1 else ENGLISH
    return ENGLISH if not code or code in WITHOUT_SPACES else code


class Bm25Index:
    """An index by which texts are retrieved and scored; the first stage, and BM25 as a teacher.

    Args:
        texts: Texts of the documents.
        language: Of the texts, as in `RankingData`; says which stop words are left out (bm25s) and how words are
            stemmed (Snowball). A language for which there are none keeps its words as they are.
    """

    def __init__(self, texts: Sequence[str], language: str = ENGLISH) -> None:
        import bm25s

        self._bm25s = bm25s
        code = analysed_as(language)
        self._stemmer = _stemmer(code)
        self._stop_words = code if code in STOP_WORDS else None
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
            [_spaced(query)],
            stopwords=self._stop_words,
            stemmer=self._stemmer,
            return_ids=False,
            show_progress=False,
        )
        if not words or self._wordless:
            return np.zeros(self.size, dtype=np.float32)
        return self._index.get_scores(words)

    def _tokens(self, texts: Sequence[str]) -> Any:
        return self._bm25s.tokenize(
            [_spaced(text) for text in texts],
            stopwords=self._stop_words,
            stemmer=self._stemmer,
            show_progress=False,
        )


def _stemmer(code: str) -> Stemmer | None:
    from Stemmer import Stemmer

    try:
        return Stemmer(code)
    except KeyError:  # no stemmer of that name
        return None


def _spaced(text: str) -> str:
    """The text with every run of an unspaced script as overlapping pairs of characters, which are then its words."""
    return _UNSPACED.sub(lambda run: f" {' '.join(_pairs(run.group()))} ", text)


def _pairs(run: str) -> list[str]:
    return [run[place : place + 2] for place in range(max(1, len(run) - 1))]
