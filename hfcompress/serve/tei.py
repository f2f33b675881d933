"""The interface of text-embeddings-inference: `POST /rerank` with `texts`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from hfcompress.rankers.encoding import Side
from hfcompress.serve.fields import Body, Documents, Flag, ModelName, Query
from hfcompress.serve.ranking import Ranking, Wanted


class TeiRequest(Body):
    """A request of text-embeddings-inference; `model` is an addition for servers of several models."""

    query: Query
    texts: Documents
    raw_scores: Annotated[Flag, Field(description="Logits instead of their sigmoids.")] = False
    return_text: Flag = False
    truncate: Annotated[Flag, Field(description="False refuses pairs that are too long.")] = None
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = "right"
    model: ModelName = None

    def wanted(self) -> Wanted:
        """What is asked for."""
        side: Side | None = "left" if (self.truncation_direction or "").lower() == "left" else None
        return Wanted(self.query, self.texts, self.model, self.truncate is not False, side)

    def response(self, ranking: Ranking) -> list[dict[str, Any]]:
        """The body of the response."""
        return [
            {"index": index, "score": score, **({"text": self.texts[index]} if self.return_text else {})}
            for index, score in ranking.hits(raw=bool(self.raw_scores))
        ]


class TeiRank(BaseModel):
    """A ranked text."""

    index: int
    score: Annotated[float, Field(description="The sigmoid of the logit, or the logit with `raw_scores`.")]
    text: str | None = None


class TeiError(BaseModel):
    """An error of text-embeddings-inference."""

    error: str | dict[str, Any]
    error_type: str | None = None
