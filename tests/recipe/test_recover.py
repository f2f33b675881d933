"""Recipe section `recover`: invalid values, and features, which are off by default."""

from __future__ import annotations

from typing import Any

import pytest
from recipe_samples import FULL, MINIMAL, assert_named, changed, fault, read, same

from hfcompress.recipe import Recipe


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("recover.documents", 1, "greater than or equal to 2"),
        ("recover.loss.temperature", 0, "greater than 0"),
        ("recover.loss.listwise_kl", 0, "at least one of margin_mse, listwise_kl, ranknet"),
        ("recover.loss.hard", -1, "greater than or equal to 0"),
        ("recover.also_share", 1.0, "less than 1"),
        ("recover.also", ["a.txt", "b", "a.txt"], "also names a.txt twice"),
    ],
)
def test_invalid_values_are_named(path: str, value: Any, words: str) -> None:
    assert_named(path, value, words)


def test_features_are_off_until_their_section_is_there() -> None:
    pruned = changed(changed(MINIMAL, "prune.heads", 0.5), "recover", {})
    recipe = read(pruned)
    assert recipe.recover is not None and recipe.recover.features is None
    for features in ({}, {"hidden": 2.0, "relation": 0.0, "decay": 1.0, "hidden_layers": "last", "relation_heads": 48}):
        recipe = read(changed(pruned, "recover.features", features))
        assert recipe.recover is not None and recipe.recover.features is not None
        assert features.items() <= recipe.recover.features.model_dump().items()
        assert same(Recipe.from_yaml(recipe.to_yaml()), recipe)
    assert "recover.features" in fault(changed(FULL, "recover.features", {}))  # it has prune.vocabulary


def test_additional_texts_have_no_labels_and_are_not_those_of_the_data() -> None:
    settings = changed(FULL, "recover.also", ["general-text", "other/set", "notes.txt"])
    recipe = read(changed(settings, "recover.also_share", 0.25))
    assert recipe.recover is not None and (recipe.recover.also[2], recipe.recover.also_share) == ("notes.txt", 0.25)
    assert same(Recipe.from_yaml(recipe.to_yaml()), recipe)
    assert "also excludes loss.bce" in fault(changed(settings, "recover.loss.bce", 0.1))
    assert "recover.also names data/ä, which data.sets has" in fault(changed(FULL, "recover.also", ["data/ä"]))
    assert "at least 4" in fault(changed(settings, "prune.calibration_queries", 3))
