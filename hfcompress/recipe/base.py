"""Base of all sections of a recipe: strict models, number types, deprecated names, and errors for invalid settings."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, ValidationError, model_validator

from hfcompress.errors import RecipeError
from hfcompress.utils.settings import Closed

logger = logging.getLogger(__name__)

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]

# Renamed keys and values. Fingerprints of a run's steps contain the old spelling, so that earlier runs can be resumed.
LEGACY_KEYS = {"target_macs": "target_flops"}
LEGACY_VALUES = {("method", "round"): "truncation"}


class Strict(Closed):
    """An immutable model that rejects unknown keys, NaN and infinity. A key set to null has its default.

    Attributes:
        deprecated: Current names of keys by their deprecated names, which are still accepted with a warning.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    deprecated: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, settings: Any) -> Any:  # after the renaming: the last validator runs first
        if not isinstance(settings, dict):
            return settings
        return {key: value for key, value in settings.items() if value is not None or key not in cls.model_fields}

    @model_validator(mode="before")
    @classmethod
    def _rename_deprecated(cls, settings: Any) -> Any:
        for old, new in cls.deprecated.items():
            if isinstance(settings, dict) and old in settings:
                if new in settings:
                    raise ValueError(f"{old} is the deprecated name of {new}: give {new} only")
                logger.warning("%s is deprecated and will be removed in the next version: use %s", old, new)
                settings = {new if key == old else key: value for key, value in settings.items()}
        return settings


def with_legacy_names(settings: Any) -> Any:
    """A copy of dumped settings in which renamed keys and values have their old spelling.

    Args:
        settings: JSON-serializable data, such as `model_dump(mode="json")` or a list with such dumps.
    """
    if isinstance(settings, dict):
        return {
            LEGACY_KEYS.get(key, key): (
                LEGACY_VALUES.get((key, value), value) if isinstance(value, str) else with_legacy_names(value)
            )
            for key, value in settings.items()
        }
    return [with_legacy_names(each) for each in settings] if isinstance(settings, list | tuple) else settings


def invalid(what: str, error: ValidationError) -> RecipeError:
    """The error for invalid settings, which names each of them."""
    faults = "; ".join(
        f"{'.'.join(str(part) for part in fault['loc']) or 'recipe'}: {fault['msg']}" for fault in error.errors()
    )
    return RecipeError(
        f"{what}: {faults}",  # not as the value, which is shortened
        expected="known keys with valid values",
        remedy="correct or remove these keys; docs/recipe.md lists all keys",
    )
