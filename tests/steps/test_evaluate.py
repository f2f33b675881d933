"""What a kept measurement depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hfcompress.data.ranking import RankingData
from hfcompress.recipe import Recipe
from hfcompress.steps.context import RunContext
from hfcompress.steps.evaluate import evaluate
from hfcompress.steps.workspace import Preview, StepFolder, StepModel

CHANGES = {"publish_texts": True, "license": "mit", "notes": ("a note",), "name": "others", "language": "de"}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_report_says_of_the_data_is_measured_again(
    change: str, word_data: RankingData, tmp_path: Path
) -> None:
    recipe = Recipe.model_validate({"name": "x", "data": {"sets": ["x"]}, "teacher": {"model": "x"}})

    def asked(data: RankingData) -> Any:
        fingerprints = []

        class Noting(Preview):
            def step(self, *arguments: Any) -> StepFolder:
                found = super().step(*arguments)
                fingerprints.append(found.fingerprint)
                return found

        context = RunContext(recipe, data, Noting(tmp_path, {}), False)
        evaluate(context, StepModel("x", ""), StepFolder(tmp_path, ""), [], StepFolder(tmp_path, ""))
        return fingerprints

    assert asked(word_data) == asked(replace(word_data))
    assert asked(word_data) != asked(replace(word_data, **{change: CHANGES[change]}))
