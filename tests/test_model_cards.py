"""The cards that are kept were rendered by real runs: each is what its report gives today."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hfcompress.card import render
from hfcompress.card.figures import PARETO_FILE
from hfcompress.card.front_matter import read_front_matter
from hfcompress.recipe import Recipe
from hfcompress.report.report import RunReport

ROOT = Path(__file__).parents[1]
CARDS = sorted(path.parent for path in (ROOT / "model_cards").glob("*/report.json"))


def test_there_are_cards() -> None:
    assert {card.name for card in CARDS} >= {"quickstart"}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_card_is_rendered_from_its_report(card: Path) -> None:
    report = RunReport.load(card)
    text = (card / "README.md").read_text(encoding="utf-8")
    assert render(report) == text
    assert str(ModelCard(text)) == text and read_front_matter(text)["license"] == report.license
    assert (card / PARETO_FILE).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_card_is_of_the_recipe_in_configs(card: Path) -> None:
    recipe = RunReport.load(card).recipe
    assert Recipe.from_yaml(recipe) == Recipe.load(ROOT / "configs" / f"{card.name}.yaml")
