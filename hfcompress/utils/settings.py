"""Unknown settings are refused with the name of the nearest one, instead of being ignored."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from hfcompress.errors import HfCompressError, RecipeError

DEVICE_PATTERN = r"^(auto|cpu|mps|cuda(:[0-9]+)?)$"  # of recipes and options; here, since recipes do without PyTorch


def nearest(name: str, known: Iterable[str]) -> str:
    """A question that names the setting that is spelt like `name`, or else all that exist."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, 1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"


def refuse_unknown(
    what: str, given: Iterable[str], known: Iterable[str], error: type[HfCompressError] = RecipeError
) -> None:
    """Check that all settings exist.

    Args:
        what: What has the settings, for the error message.
        given: Names of the settings.
        known: Names that exist.
        error: Class of the error.

    Raises:
        HfCompressError: A setting does not exist; of the class `error`.
    """
    names = sorted(known)
    if unknown := sorted(set(given) - set(names)):
        raise error(
            f"{what} has no such setting",
            value=", ".join(unknown),
            expected=f"settings among {', '.join(names)}",
            remedy="; ".join(f"{name}: {nearest(name, names)}" for name in unknown),
        )


class Closed(BaseModel):
    """A model that rejects unknown keys, and names the nearest known one in the error."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_nearest(cls, settings: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(settings)
        except ValidationError as error:
            faults = [cls._fault(dict(fault)) for fault in error.errors()]
            raise ValidationError.from_exception_data(error.title, faults) from None

    @classmethod
    def _fault(cls, fault: dict[str, Any]) -> InitErrorDetails:
        message = fault["msg"]
        if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
            message = f"{message}: {nearest(str(fault['loc'][0]), cls.model_fields)}"
        kind = PydanticCustomError("setting" if message != fault["msg"] else fault["type"], "{text}", {"text": message})
        return InitErrorDetails(type=kind, loc=fault["loc"], input=fault["input"])
