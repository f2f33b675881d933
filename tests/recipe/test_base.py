"""The base of all sections: models cannot be changed, and renamed settings keep their old names in fingerprints."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from recipe_samples import FULL, MINIMAL, read

from hfcompress.recipe import PackedWeights, PruneStep, Recipe
from hfcompress.recipe.base import with_legacy_names

LEGACY = Path(__file__).parents[1] / "legacy" / "recipe.yaml"


def test_recipes_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        read(MINIMAL).seed = 1  # type: ignore[misc]


def test_old_names_of_dumped_settings() -> None:
    step = PruneStep(target_macs=0.5, stages=2)
    packed = PackedWeights(bits=5), PackedWeights(method="sign")
    dumped = [step.model_dump(mode="json"), [[each.model_dump(mode="json") for each in packed], None, "round", 3]]
    prune, ((rounded, sign), *rest) = with_legacy_names(dumped)
    assert prune.pop("target_flops") == 0.5 and "target_macs" not in prune
    assert prune.items() <= step.model_dump(mode="json").items()
    assert rounded == {**packed[0].model_dump(), "method": "truncation"} and sign == packed[1].model_dump()
    assert rest == [None, "round", 3]


def test_other_settings_keep_their_names() -> None:
    dumped = read(FULL).model_dump(mode="json", exclude={"prune", "quantize"})
    assert with_legacy_names(dumped) == dumped


def test_a_recipe_of_an_earlier_version_loads() -> None:
    recipe = Recipe.load(LEGACY)
    assert recipe.prune is not None and recipe.prune.target == ("target_macs", 0.5)
    assert recipe.quantize.artifacts[1] == PackedWeights(bits=6)
    assert recipe.text == LEGACY.read_text(encoding="utf-8")
    old, new = yaml.safe_load(recipe.text), recipe.model_dump(mode="json", exclude_unset=True)
    assert old["prune"] == with_legacy_names(new["prune"])
