"""The interface of Infinity: `POST /rerank` with `documents`."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import BaseModel, Field

from hfcompress.serve.fields import Body, Documents, Flag, ModelName, Query, TopN, Usage, without
from hfcompress.serve.ranking import Ranking, Wanted

UNSPECIFIED = "default/not-specified"  # what Infinity's clients send for its first model


class InfinityRequest(Body):
    """A request of Infinity."""

    model_config = without("texts")

    query: Query
    documents: Documents
    return_documents: Flag = False
    raw_scores: Annotated[Flag, Field(description="Logits instead of their sigmoids.")] = False
    top_n: TopN = None
    model: ModelName = None

    def wanted(self) -> Wanted:
        """What is asked for."""
        return Wanted(self.query, self.documents, None if self.model == UNSPECIFIED else self.model)

    def response(self, ranking: Ranking) -> dict[str, Any]:
        """The body of the response; `data` is what versions before 0.0.53 called `results`."""
        results = [
            {"relevance_score": score, "index": index, "document": self.documents[index]}
            if self.return_documents
            else {"relevance_score": score, "index": index}
            for index, score in ranking.hits(self.top_n, bool(self.raw_scores))
        ]
        return {
            "object": "rerank",
            "results": results,
            "data": results,
            "model": ranking.model,
            "usage": {"prompt_tokens": ranking.tokens, "total_tokens": ranking.tokens},
            "id": f"infinity-{uuid4()}",
            "created": int(time.time()),
        }


class InfinityRank(BaseModel):
    """A ranked document."""

    relevance_score: Annotated[float, Field(description="The sigmoid of the logit, or the logit with `raw_scores`.")]
    index: int
    document: str | None = None


class InfinityResponse(BaseModel):
    """A response of Infinity."""

    object: Literal["rerank"]
    results: list[InfinityRank]
    data: list[InfinityRank]
    model: str
    usage: Usage
    id: str
    created: int
