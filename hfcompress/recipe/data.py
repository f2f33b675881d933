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


class DataStep(Strict):
    """Data to train, choose and measure on.

    Attributes:
        sets: `api-search`, or folders in BEIR's layout; several are joined.
        candidates: Documents to rank for each query.
        max_queries: Limits on the number of queries, taken in the order of a hash of their id.
        dev_from_train: So many labelled train queries become the dev split where the data has none; left out, such a
            run keeps the last weights of each training.
    """

    sets: Annotated[list[str], Field(min_length=1)]
    candidates: Positive = 20
    max_queries: SplitLimits = SplitLimits()
    dev_from_train: Positive | None = None
