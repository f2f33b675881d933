"""The interface of Jina: `POST /v1/rerank`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from hfcompress.serve.cohere import V1_ONLY, CohereRank, document_text, v1_response
from hfcompress.serve.fields import Body, Flag, ModelName, Objects, Query, TopN, Usage, without
from hfcompress.serve.ranking import Ranking, Wanted


class JinaRequest(Body):
    """A request of Jina, and one of Cohere's version 1 without the fields that only that has."""

    model_config = without(*V1_ONLY)

    model: ModelName = None
    query: Query
    documents: Objects
    top_n: TopN = None
    return_documents: Flag = True
    truncation: Annotated[Flag, Field(description="False refuses pairs that are too long.")] = True

    def wanted(self) -> Wanted:
        """What is asked for."""
        return Wanted(self.query, list(map(document_text, self.documents)), self.model, self.truncation is not False)

    def response(self, ranking: Ranking) -> dict[str, Any]:
        """The body of the response, which clients of Cohere can read too."""
        return v1_response(ranking, self.top_n, None if self.return_documents is False else self.documents)


class JinaResponse(BaseModel):
    """A response of `/v1/rerank`."""

    id: str
    model: str
    object: str
    results: list[CohereRank]
    usage: Usage
    meta: dict[str, Any]


class JinaError(BaseModel):
    """An error of `/v1/rerank`."""

    id: str
    message: str
    detail: str
