"""From the names in a recipe to ranking data."""

from __future__ import annotations

from pathlib import Path

from hfcompress.data.api_search import load_api_search
from hfcompress.data.beir import load_beir
from hfcompress.data.ranking import RankingData, check, merge
from hfcompress.recipe import DataStep

API_SEARCH = "api-search"


def load_data(step: DataStep, progress: bool = True, unlabelled: bool = False) -> RankingData:
    """Load, limit and join the data sets of a recipe.

    Args:
        step: What to load.
        progress: Show a progress bar.
        unlabelled: Take queries without judgements for train queries; see `load_beir`.

    Raises:
        DataError: A set cannot be used.
    """
    limits = step.max_queries.model_dump()
    sets = []
    for name in step.sets:
        if name == API_SEARCH:
            data = check(load_api_search(limits, progress))
        else:
            data = load_beir(Path(name).expanduser(), step.candidates, unlabelled)
        sets.append(data.limited(limits, step.candidates))
    return merge(sets)
