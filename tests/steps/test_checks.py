"""What is wrong with data is found before a run begins its long work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hfcompress.data.ranking import RankingData, Split
from hfcompress.errors import DataError
from hfcompress.recipe import Recipe
from hfcompress.steps.checks import check_data


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.model_validate({"name": "x", "data": {"sets": ["words"]}, "teacher": {"model": "m", "train": {}}})


def with_split(data: RankingData, name: str, split: Split) -> RankingData:
    return replace(data, splits={**data.splits, name: split})


@pytest.mark.parametrize("left", [1, 2])
def test_queries_count_where_they_have_a_relevant_document(recipe: Recipe, word_data: RankingData, left: int) -> None:
    test = word_data.splits["test"]
    qrels = {
        query: dict(grades) if place < left else dict.fromkeys(grades, 0)
        for place, (query, grades) in enumerate(test.qrels.items())
    }
    data = with_split(word_data, "test", Split(qrels, test.candidates))
    if left == 2:
        check_data(recipe, data)
        return
    with pytest.raises(DataError, match="1 of 12 test queries have a relevant document"):
        check_data(recipe, data)


@pytest.mark.parametrize("name", ["dev", "test"])
def test_a_split_without_anything_to_rank_is_refused(recipe: Recipe, word_data: RankingData, name: str) -> None:
    check_data(recipe, word_data)
    split = word_data.splits[name]
    first, *others = split.candidates
    check_data(recipe, with_split(word_data, name, Split(split.qrels, {**split.candidates, first: []})))
    empty = Split(split.qrels, {query: [] for query in (first, *others)})
    with pytest.raises(DataError, match=f"No {name} query of 'words' has a document to rank"):
        check_data(recipe, with_split(word_data, name, empty))
