"""What is wrong with data is found before a run begins its long work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from run_samples import recipe_for

from hfcompress.data.ranking import RankingData, Split
from hfcompress.errors import DataError, RecipeError
from hfcompress.recipe import Recipe
from hfcompress.steps.checks import check, check_data


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.model_validate({"name": "x", "data": {"sets": ["words"]}, "teacher": {"model": "m", "train": {}}})


def with_split(data: RankingData, name: str, split: Split) -> RankingData:
    return replace(data, splits={**data.splits, name: split})


@pytest.mark.parametrize("name", ["student-openvino-int8", "onnx/model_quantized.onnx", "teacher"])
def test_an_artifact_to_deploy_that_is_none_of_the_run_is_refused(run_inputs: Path, name: str) -> None:
    settings = recipe_for(run_inputs)
    check(Recipe.model_validate(settings | {"evaluate": {"deploy": "student-onnxruntime-int8-dynamic"}}))
    with pytest.raises(RecipeError, match="student-torch, student-onnxruntime-int8-dynamic") as raised:
        check(Recipe.model_validate(settings | {"evaluate": {"deploy": name}}))
    assert f"evaluate.deploy: {name}" in str(raised.value)


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
