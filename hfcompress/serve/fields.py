"""Fields that the interfaces have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

LARGEST = 2**31 - 1


def _integer(value: Any) -> Any:
    """In JSON Schema, 5.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


INTEGER = BeforeValidator(_integer)  # stands behind limits, which are not in the schema otherwise
Positive = Annotated[int, Field(ge=1, le=LARGEST), INTEGER]
Query = Annotated[str, Field(min_length=1, pattern=r"\S", description="The query.", examples=["sort a list"])]
Documents = Annotated[list[str], Field(min_length=1, description="Texts to rank.")]
Objects = Annotated[
    list[str | dict[str, str]], Field(min_length=1, description="Texts to rank, or objects with the field `text`.")
]
ModelName = Annotated[str | None, Field(description="Name of a model, as in /info; by default the first one.")]
Flag = bool | None
TopN = Annotated[Positive | None, Field(description="Number of results; by default all.")]


class Body(BaseModel):
    """A body of a request. Types are strict; unknown fields are ignored, as other servers do.

    Every field with a default takes null, which stands for the default: some clients send all fields that they know.
    """

    model_config = ConfigDict(strict=True, extra="ignore")


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    total_tokens: int


def without(*names: str) -> ConfigDict:
    """Settings of a body that is told from another one by fields which it does not have.

    Args:
        *names: These fields; the schema says so.
    """
    return ConfigDict(json_schema_extra={"not": {"anyOf": [{"required": [name]} for name in names]}})


def with_any(*names: str) -> ConfigDict:
    """Settings of a body that is known by fields of which it has at least one.

    Args:
        *names: These fields; the schema says so.
    """
    return ConfigDict(json_schema_extra={"anyOf": [{"required": [name]} for name in names]})
