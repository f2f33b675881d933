"""The setting for long documents."""

from __future__ import annotations

import pytest

from hfcompress.errors import RecipeError
from hfcompress.recipe import EvaluateStep, LongDocuments, Recipe
from hfcompress.recipe.long_documents import long_documents_of


def test_a_mode_alone_is_a_setting() -> None:
    assert long_documents_of("chunk") == LongDocuments(mode="chunk")
    assert long_documents_of({"mode": "chunk", "max_chunks": 3}).max_chunks == 3
    assert long_documents_of("truncate").is_default
    assert not LongDocuments(max_tokens_per_doc=9).is_default


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("window", "truncate"),
        ({"mode": "chunk", "combine": "sum"}, "combine"),
        ({"mode": "chunk", "overlapp": 3}, "overlap"),
        ({"max_chunks": 3}, "set mode to chunk"),
    ],
)
def test_settings_that_cannot_hold_are_refused(settings: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        long_documents_of(settings)  # type: ignore[arg-type]


def test_recipes_without_it_dump_as_before() -> None:
    """Fingerprints of earlier runs contain the dump of this section."""
    assert "long_documents" not in EvaluateStep().model_dump()
    step = EvaluateStep.model_validate({"long_documents": "chunk"})
    assert step.model_dump()["long_documents"]["mode"] == "chunk"
    assert EvaluateStep.model_validate(step.model_dump()) == step
    assert step.model_dump(include={"margin", "long_documents"}).keys() == {"margin", "long_documents"}


def test_scores_before_documents_exclude_chunks() -> None:
    text = "name: a\ndata: {sets: [b], score_text: {}}\nteacher: {model: c}\nevaluate: {long_documents: chunk}\n"
    with pytest.raises(RecipeError, match=r"data\.score_text"):
        Recipe.from_yaml(text)
