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
