"""BM25 scores as text in the input of a reranker: query, score, document (Askari et al., ECIR 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pydantic import ValidationError

from hfcompress.data.bm25 import ENGLISH, Bm25Index
from hfcompress.data.document import Document
from hfcompress.errors import DataError, ModelError
from hfcompress.recipe import ScoreText

if TYPE_CHECKING:
    from transformers import PretrainedConfig

HIGHEST = 100  # largest number in a text
CONFIG_KEY = "score_text"


def text_with_score(document: str, score: float, bm25_max: float = 25.0, separator: str = "[SEP]") -> str:
    """Write a BM25 score before a document, as models with `score_text` in their `config.json` expect it.

    The result looks like `"57 [SEP] the document"`; the number is `round(100 * min(max(score / bm25_max, 0), 1))`.
    It depends only on the score of the pair and a constant, so it is the same in training and inference, whichever
    other documents are ranked. A cross-encoder then reads `[CLS] query [SEP] 57 [SEP] document [SEP]` (Askari et al.,
    "Injecting the BM25 score as text improves BERT-based re-rankers", ECIR 2023, arXiv:2301.09728).

    Args:
        document: Text of the document.
        score: BM25 score of the document for the query, over all documents that are searched: k1 = 1.2, b = 0.75,
            Lucene's variant (without the factor k1 + 1), stop words and stemmer of the language of the texts; 0 if
            document and query share no word.
        bm25_max: As in `config.json`.
        separator: As in `config.json`.

    Raises:
        DataError: The score is not a finite number, or `bm25_max` is not above 0.
    """
    if not math.isfinite(score) or not bm25_max > 0:
        raise DataError(
            "The score cannot be written as text",
            value=f"score {score}, bm25_max {bm25_max}",
            expected="a finite score and a bm25_max above 0",
            remedy="pass the BM25 score of the first stage, and score_text.bm25_max of config.json",
        )
    return f"{round(HIGHEST * min(max(score / bm25_max, 0.0), 1.0))} {separator} {document}"


def text_without_score(text: str, settings: ScoreText) -> str:
    """Return the document of a text written by `text_with_score`."""
    return text.partition(f" {settings.separator} ")[2]


class ScoredTexts:
    """Texts of any documents of a corpus with their BM25 scores for a query.

    Args:
        settings: Format of the scores.
        corpus: `{document id: Document}`, from which document frequencies are counted.
        language: Language of the texts, as in `RankingData`.

    Attributes:
        settings: Format of the scores.
    """

    def __init__(self, settings: ScoreText, corpus: Mapping[str, Document], language: str = ENGLISH) -> None:
        self.settings = settings
        self._corpus = corpus
        self._index = Bm25Index([document.content for document in corpus.values()], language)
        self._indices = {document: index for index, document in enumerate(corpus)}

    def documents(self, query: str, document_ids: Iterable[str]) -> list[str]:
        """Return the texts of documents with their scores for the text of a query."""
        scores, settings = self._index.scores(query), self.settings.model_dump()
        return [
            text_with_score(self._corpus[document].content, float(scores[self._indices[document]]), **settings)
            for document in document_ids
        ]


def score_text_of(config: PretrainedConfig) -> ScoreText | None:
    """Return the score format that a model's config asks for; None if the model reads documents alone.

    Raises:
        ModelError: The settings in the config are invalid.
    """
    found = getattr(config, CONFIG_KEY, None)
    if found is None:
        return None
    try:
        return ScoreText.model_validate(found)
    except ValidationError as error:
        raise ModelError(
            f"The entry {CONFIG_KEY!r} of the model's config.json, the format of BM25 scores, is invalid: "
            f"{error.errors()[0]['msg']}",
            value=found,
            expected=f"settings such as {ScoreText().model_dump()}",
            remedy="correct config.json, or use the version of hfcompress that wrote it",
        ) from error


def require_plain_documents(model: str, config: PretrainedConfig) -> None:
    """Check that a model reads documents alone, so that it can rank any list of them.

    Args:
        model: Name of the model, for the error message.
        config: Its config.

    Raises:
        DataError: It reads the BM25 score of each document.
        ModelError: The settings in the config are invalid.
    """
    if settings := score_text_of(config):
        raise DataError(
            f"{model} reads the BM25 score of every document over a corpus, which a list of documents does not have",
            value=f"score_text in its config.json: {settings.model_dump()}",
            expected="a model that reads documents without scores",
            remedy="rank in Python: ranker.rank(query, [hfcompress.text_with_score(document, score, ...) ...]), as its "
            "card shows",
        )


def record_score_text(config: PretrainedConfig, settings: ScoreText | None) -> None:
    """Write the score format into a model's config, or remove it if `settings` is None."""
    if settings is not None:
        setattr(config, CONFIG_KEY, settings.model_dump())
    elif hasattr(config, CONFIG_KEY):
        delattr(config, CONFIG_KEY)
