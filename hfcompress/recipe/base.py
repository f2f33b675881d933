"""What all parts of a recipe share: strict models, kinds of numbers, and the error for what does not fit."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hfcompress.errors import RecipeError

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]


class Strict(BaseModel):
    """A model that refuses unknown keys, NaN and infinity, and cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def invalid(what: str, error: ValidationError) -> RecipeError:
    """The error for settings that do not fit, which names each of them."""
    faults = "; ".join(
        f"{'.'.join(str(part) for part in fault['loc']) or 'recipe'}: {fault['msg']}" for fault in error.errors()
    )
    return RecipeError(
        f"{what}: {faults}",  # not as the value, which is shortened
        expected="known keys with values that fit",
        remedy="correct or remove these keys; docs/recipe.md lists all keys",
    )
