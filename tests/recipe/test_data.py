"""Recipe section `data`: invalid values."""

from __future__ import annotations

from typing import Any

import pytest
from recipe_samples import assert_named


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("data.sets", [], "at least 1"),
        ("data.sets", "api-search", "valid list"),
        ("data.candidates", 0, "greater than 0"),
        ("data.max_queries.test", 0, "greater than 0"),
    ],
)
def test_invalid_values_are_named(path: str, value: Any, words: str) -> None:
    assert_named(path, value, words)
