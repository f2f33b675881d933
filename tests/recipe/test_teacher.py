"""Recipe section `teacher`: invalid values."""

from __future__ import annotations

from typing import Any

import pytest
from recipe_samples import FULL, assert_named, changed, fault


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("teacher.max_length", 4, "greater than or equal to 8"),
        ("teacher.train.loss", "triplet", "'listwise' or 'pointwise'"),
        ("teacher.train.optimization.accumulation", 5, "accumulation (5) must divide queries_per_batch (12)"),
        ("teacher.train.optimization.learning_rate", 0, "greater than 0"),
        ("teacher.train.optimization.dropout", 1, "less than 1"),
        ("teacher.train.optimization.precision", "int8", "'auto', 'bf16', 'fp16' or 'fp32'"),
    ],
)
def test_invalid_values_are_named(path: str, value: Any, words: str) -> None:
    assert_named(path, value, words)


def test_training_without_negatives() -> None:
    message = fault(changed(FULL, "teacher.train.random_negatives", 0))
    assert "hard_negatives and random_negatives cannot both be 0" in message
