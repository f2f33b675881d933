"""Fields that the interfaces have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

LARGEST = 2**31 - 1

Query = Annotated[str, Field(min_length=1, pattern=r"\S", description="The query.", examples=["sort a list"])]
Documents = Annotated[list[str], Field(min_length=1, description="Texts to rank.")]
ModelName = Annotated[str | None, Field(description="Name of a model, as in /info; by default the first one.")]
TopN = Annotated[int | None, Field(ge=1, le=LARGEST, description="Number of results; by default all.")]


class Body(BaseModel):
    """A body of a request. Types are strict; unknown fields are ignored, as other servers do."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    total_tokens: int
