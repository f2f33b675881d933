"""Recipe section `evaluate`: invalid values."""

from __future__ import annotations

from typing import Any

import pytest
from recipe_samples import assert_named


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("evaluate.margin", 0, "greater than 0"),
        ("evaluate.confidence", 1, "less than 1"),
        ("evaluate.confidence", 0.5, "greater than 0.5"),
    ],
)
def test_invalid_values_are_named(path: str, value: Any, words: str) -> None:
    assert_named(path, value, words)
