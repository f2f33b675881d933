"""Recipe section `data`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hfcompress.recipe.base import Positive, Strict


class SplitLimits(Strict):
    """Maximum number of queries of each split. A split without a limit is used in full.

    Attributes:
        train: Train queries.
        dev: Dev queries.
        test: Test queries.
    """

    train: Positive | None = None
    dev: Positive | None = None
    test: Positive | None = None


class ScoreText(Strict):
    """How the BM25 score of a pair is written as text before the document; see `text_with_score`.

    Attributes:
        bm25_max: BM25 score that is written as 100. Higher scores are clipped to it; 0 is written as 0.
        separator: Text between score and document: the tokenizer's separator token, `</s>` for RoBERTa models.
    """

    bm25_max: Annotated[float, Field(gt=0)] = 25.0
    separator: str = "[SEP]"


class DataStep(Strict):
    """Data for training, model selection and evaluation.

    Attributes:
        sets: Data sets to load and join: `api-search` or `recommend` (built in), a folder or a file (in the layout of
            BEIR or TREC, or rows in CSV, JSON, Parquet or as `datasets` saves them), `hub:ORG/NAME` or
            `hub:ORG/NAME:CONFIG`, or `irds:ID` of ir_datasets.
        candidates: Documents to rank for each query.
        max_queries: Maximum number of queries, taken in the order of a hash of their ids.
        dev_from_train: Number of labelled train queries that become the dev split if the data has none. Without a dev
            split, each training keeps its last weights.
        split_seed: Seed of the hash that takes dev and test from the queries of a set without these splits.
        label_threshold: Least label that counts as relevant, for labels in rows that are not whole numbers. The default
            is 0.5 if all of them lie between 0 and 1.
        score_text: Write the BM25 score of every pair before its document, wherever a model reads it. By default
            models read query and document only.
    """

    sets: Annotated[list[str], Field(min_length=1)]
    candidates: Positive = 20
    max_queries: SplitLimits = SplitLimits()
    dev_from_train: Positive | None = None
    split_seed: Annotated[int, Field(ge=0)] = 0
    label_threshold: float | None = None
    score_text: ScoreText | None = None
