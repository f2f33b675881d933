"""The data of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hfcompress.recipe.base import Positive, Strict


class SplitLimits(Strict):
    """At most so many queries of each split; all of them where a split is left out.

    Attributes:
        train: Train queries.
        dev: Dev queries.
        test: Test queries.
    """

    train: Positive | None = None
    dev: Positive | None = None
    test: Positive | None = None


class ScoreText(Strict):
    """The BM25 score of a pair as text, which the reranker reads before the document; see `text_with_score`.

    Attributes:
        bm25_max: BM25 score that is written as 100, as are all above it; a score of 0 is written as 0.
        separator: What stands between score and document: the tokenizer's separator, `</s>` in RoBERTa's families.
    """

    bm25_max: Annotated[float, Field(gt=0)] = 25.0
    separator: str = "[SEP]"


class DataStep(Strict):
    """Data to train, choose and measure on.

    Attributes:
        sets: What to load; several are joined. `api-search` or `recommend` (built in), a folder or a file (BEIR's
            layout, TREC's, or rows in CSV, JSON, Parquet or as `datasets` saves them), `hub:ORG/NAME` or
            `hub:ORG/NAME:CONFIG`, or `irds:ID` of ir_datasets.
        candidates: Documents to rank for each query.
        max_queries: Limits on the number of queries, taken in the order of a hash of their id.
        dev_from_train: So many labelled train queries become the dev split where the data has none; left out, such a
            run keeps the last weights of each training.
        split_seed: Seed of the hash by which dev and test are cut from the queries of a set that comes without them.
        label_threshold: From which value on a label counts as relevant, where labels in rows are no whole numbers;
            0.5 where all lie between 0 and 1.
        score_text: Write the BM25 score of every pair before its document, wherever a model reads it; left out, models
            read query and document alone.
    """

    sets: Annotated[list[str], Field(min_length=1)]
    candidates: Positive = 20
    max_queries: SplitLimits = SplitLimits()
    dev_from_train: Positive | None = None
    split_seed: Annotated[int, Field(ge=0)] = 0
    label_threshold: float | None = None
    score_text: ScoreText | None = None
