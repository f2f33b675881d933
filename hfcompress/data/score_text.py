"""The BM25 score of a pair as text that a reranker reads: query, score, document (Askari et al., ECIR 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import ValidationError

from hfcompress.data.bm25 import ENGLISH, Bm25Index
from hfcompress.data.ranking import Document, RankingData
from hfcompress.errors import DataError, ModelError
from hfcompress.recipe import ScoreText

if TYPE_CHECKING:
    from transformers import PretrainedConfig

HIGHEST = 100  # the largest number that is written
CONFIG_KEY = "score_text"


def text_with_score(document: str, score: float, bm25_max: float = 25.0, separator: str = "[SEP]") -> str:
    """Text of a document as a model with `score_text` in its `config.json` reads it: `"57 [SEP] the document"`.

    The number is `round(100 * min(max(score / bm25_max, 0), 1))`. It depends on nothing but the score of this pair and
    a constant, so that it is the same in training and where the model is used, whatever other documents are ranked. A
    cross-encoder then reads `[CLS] query [SEP] 57 [SEP] document [SEP]` (Askari et al., "Injecting the BM25 score as
    text improves BERT-based re-rankers", ECIR 2023, arXiv:2301.09728).

    Args:
        document: Text of the document.
        score: Its BM25 score for the query: k1 = 1.2, b = 0.75, Lucene's variant (without the factor k1 + 1), stop
            words and stemmer of the texts' language, over all documents that are searched; 0 where it shares no word
            with the query.
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
            remedy="give the BM25 score of the first stage, and bm25_max as config.json has it under score_text",
        )
    return f"{round(HIGHEST * min(max(score / bm25_max, 0.0), 1.0))} {separator} {document}"


def text_without_score(text: str, settings: ScoreText) -> str:
    """The document of a text that `text_with_score` has made."""
    return text.partition(f" {settings.separator} ")[2]


class ScoredTexts:
    """Texts of the documents of a corpus with their BM25 score for a query, be it retrieved for it or not.

    Args:
        settings: How scores are written.
        corpus: `{document id: Document}`; document frequencies are taken from it.
        language: Of the texts, as in `RankingData`.

    Attributes:
        settings: How scores are written.
    """

    def __init__(self, settings: ScoreText, corpus: Mapping[str, Document], language: str = ENGLISH) -> None:
        self.settings = settings
        self._corpus = corpus
        self._index = Bm25Index([document.content for document in corpus.values()], language)
        self._places = {document: place for place, document in enumerate(corpus)}

    def documents(self, query: str, document_ids: Iterable[str]) -> list[str]:
        """Texts of documents with their scores for the text of a query."""
        scores = self._index.scores(query)
        return [
            text_with_score(
                self._corpus[document].content,
                float(scores[self._places[document]]),
                self.settings.bm25_max,
                self.settings.separator,
            )
            for document in document_ids
        ]


def with_score_text(data: RankingData, settings: ScoreText) -> RankingData:
    """The data, of whose documents models read the text behind their BM25 score.

    Everything that makes texts of pairs goes through `RankingData.documents`: training lists, what teachers score,
    calibration, latency, evaluation and explanations.
    """
    return replace(data, score_text=ScoredTexts(settings, data.corpus, data.language))


def score_text_of(config: PretrainedConfig) -> ScoreText | None:
    """How the model of a config expects scores in its texts; None if it reads documents alone.

    Raises:
        ModelError: The config says so in a way that cannot be read.
    """
    found = getattr(config, CONFIG_KEY, None)
    if found is None:
        return None
    try:
        return ScoreText.model_validate(found)
    except ValidationError as error:
        raise ModelError(
            f"The model's config.json says how to write BM25 scores under {CONFIG_KEY!r}, and cannot be read there",
            value=found,
            expected=f"settings such as {ScoreText().model_dump()}",
            remedy="correct config.json, or use a version of hfcompress like the one that wrote it",
        ) from error


def record_score_text(config: PretrainedConfig, settings: ScoreText | None) -> None:
    """Note in a config how the model's texts hold scores, or that they hold none."""
    if settings is not None:
        setattr(config, CONFIG_KEY, settings.model_dump())
    elif hasattr(config, CONFIG_KEY):
        delattr(config, CONFIG_KEY)
