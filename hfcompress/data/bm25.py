"""First-stage retrieval with BM25 (bm25s, Lucene's variant)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hfcompress.data.document import Document
from hfcompress.utils.machine import thread_count

if TYPE_CHECKING:
    from Stemmer import Stemmer

K1 = 1.2
B = 0.75
ENGLISH = "en"
# Languages with stop words in bm25s.
STOP_WORDS = frozenset(["da", "de", "en", "es", "fr", "it", "ko", "nl", "no", "pt", "ru", "sv", "tr"])
# Other ISO 639 codes of these languages and of those below.
ALIASES = {
    "nb": "no", "nn": "no", "nor": "no", "nob": "no", "nno": "no", "dan": "da", "deu": "de", "ger": "de", "eng": "en",
    "spa": "es", "fra": "fr", "fre": "fr", "ita": "it", "kor": "ko", "nld": "nl", "dut": "nl", "por": "pt", "rus": "ru",
    "swe": "sv", "tur": "tr", "jpn": "ja", "khm": "km", "lao": "lo", "mya": "my", "bur": "my", "tha": "th", "zho": "zh",
    "chi": "zh",
}  # fmt: skip
# Languages written without spaces between words; what has spaces around it there is mostly English.
WITHOUT_SPACES = frozenset(["ja", "km", "lo", "my", "th", "zh"])
# Scripts without spaces between words: Chinese and Japanese, Thai, Lao, Burmese, Khmer.
UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+")


def retrieve(
    queries: Mapping[str, str], corpus: Mapping[str, Document], k: int, language: str = ENGLISH
) -> dict[str, list[str]]:
    """Retrieve the `k` best documents of each query (k1 = 1.2, b = 0.75, stop words and stemmer of the language).

    Text in scripts without spaces, such as Chinese, is indexed as character bigrams.

    Args:
        queries: `{query id: text}`.
        corpus: `{document id: Document}`.
        k: Documents per query; fewer if the corpus is smaller.
        language: Language of the texts, as in `RankingData`.

    Returns:
        `{query id: [document id]}`, best first.
    """
    return Bm25Index([document.content for document in corpus.values()], language).retrieve(queries, list(corpus), k)


def analyzer_language(language: str) -> str:
    """Return the language whose stop words and stemmer are used.

    Args:
        language: ISO 639 codes as in `RankingData`, e.g. `de`, `deu`, `en, fr` or `zh-Hant`.

    Returns:
        A code without region: English if no or several languages are named, or if the language is written without
        spaces between words.
    """
    plain = [code.strip().lower().replace("_", "-").partition("-")[0] for code in language.split(",")]
    codes = {ALIASES.get(code, code) for code in plain}
    code = codes.pop() if len(codes) == 1 else ENGLISH
    return ENGLISH if not code or code in WITHOUT_SPACES else code


class Bm25Index:
    """A BM25 index, used as first stage and as teacher.

    Args:
        texts: Texts of the documents.
        language: Language of the texts, as in `RankingData`, which selects stop words (bm25s) and stemmer (Snowball).
            Words of a language without them are kept as they are.
    """

    def __init__(self, texts: Sequence[str], language: str = ENGLISH) -> None:
        import bm25s

        self._code = analyzer_language(language)
        self._stop_words = self._code if self._code in STOP_WORDS else None
        self.size = len(texts)
        self._index = bm25s.BM25(k1=K1, b=B, method="lucene")
        tokens = self._tokens(texts)
        self._wordless = not any(tokens.ids)  # only stop words or single letters: bm25s cannot index nothing
        if not self._wordless:
            self._index.index(tokens, show_progress=False)

    def retrieve(self, queries: Mapping[str, str], identifiers: Sequence[str], k: int) -> dict[str, list[str]]:
        """Return the ids of the `k` best documents of each query, best first.

        Args:
            queries: `{query id: text}`.
            identifiers: Ids of the texts, in their order.
            k: Documents per query.
        """
        if not queries:
            return {}
        if self._wordless:
            return {query: list(identifiers[:k]) for query in queries}
        tokens = self._tokens(list(queries.values()))
        hits, _ = self._index.retrieve(tokens, k=min(k, self.size), n_threads=thread_count(), show_progress=False)
        return {query: [identifiers[hit] for hit in row] for query, row in zip(queries, hits, strict=True)}

    def scores(self, query: str) -> np.ndarray:
        """Return the score of every document, shape `(documents,)`, float32; 0 if it shares no word with the query."""
        (words,) = self._tokens([query], return_ids=False)
        if not words or self._wordless:
            return np.zeros(self.size, dtype=np.float32)
        return self._index.get_scores(words)

    def _tokens(self, texts: Sequence[str], return_ids: bool = True) -> Any:
        import bm25s

        return bm25s.tokenize(
            [_spaced(text) for text in texts],
            stopwords=self._stop_words,
            token_pattern=_word_pattern(),
            stemmer=_stemmer(self._code),
            return_ids=return_ids,
            show_progress=False,
        )


@cache
def _word_pattern() -> str:
    """Words of two letters or more, each with the marks that belong to it: vowel signs of Hindi, vowels of Arabic.

    Python counts marks as no part of a word, which would cut most words of Hindi or Tamil in pieces.
    """
    marks = [code for code in range(0x300, 0x1E000) if unicodedata.category(chr(code)) in ("Mn", "Mc")]
    ranges: list[list[int]] = []
    for code in marks:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    listed = "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
    return rf"(?u)(?:\w[{listed}]*){{2,}}"


@cache
def _stemmer(code: str) -> Stemmer | None:
    """The stemmer of a language: not part of an index, since it cannot be pickled."""
    from Stemmer import Stemmer

    try:
        return Stemmer(code)
    except KeyError:  # no stemmer of that name
        return None


def _spaced(text: str) -> str:
    """Replace every run of an unspaced script by its character bigrams, with spaces between them."""
    return UNSPACED.sub(lambda run: f" {' '.join(_bigrams(run.group()))} ", text)


def _bigrams(run: str) -> list[str]:
    return [run[start : start + 2] for start in range(max(1, len(run) - 1))]
