"""The interfaces of Cohere: `POST /v2/rerank`, and `POST /v1/rerank` in its older form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import uuid4

from pydantic import BaseModel, Field

from hfcompress.serve.fields import INTEGER, Body, Documents, Flag, ModelName, Objects, Positive, Query, TopN, with_any
from hfcompress.serve.ranking import Ranking, Wanted

DOCUMENT_TOKENS = 4096  # Cohere's default
V1_ONLY = ("rank_fields", "max_chunks_per_doc", "max_tokens_per_doc")  # fields that Jina does not have

DocumentTokens = Annotated[Positive, Field(description="Longer documents are truncated to it.")]
Priority = Annotated[int, Field(ge=0, le=999, description="Lower numbers come first."), INTEGER]


class CohereRequest(Body):
    """A request of Cohere, version 2."""

    model: ModelName = None
    query: Query
    documents: Documents
    top_n: TopN = None
    max_tokens_per_doc: DocumentTokens | None = DOCUMENT_TOKENS
    priority: Priority | None = 0

    def wanted(self) -> Wanted:
        """What is asked for."""
        return Wanted(
            self.query,
            self.documents,
            self.model,
            document_tokens=self.max_tokens_per_doc or DOCUMENT_TOKENS,
            priority=self.priority or 0,
        )

    def response(self, ranking: Ranking) -> dict[str, Any]:
        """The body of the response."""
        results = [{"index": index, "relevance_score": score} for index, score in ranking.hits(self.top_n)]
        return {"id": str(uuid4()), "results": results, "meta": meta(2, ranking)}


class CohereV1Request(Body):
    """A request of Cohere, version 1, known by the fields that only it has."""

    model_config = with_any(*V1_ONLY)

    model: ModelName = None
    query: Query
    documents: Objects
    top_n: TopN = None
    rank_fields: Annotated[list[str] | None, Field(min_length=1, description="Fields that are read, in order.")] = None
    return_documents: Flag = False
    max_chunks_per_doc: Annotated[
        Positive | None, Field(description="Chunks of a document at most, if the server reads documents in chunks.")
    ] = None
    max_tokens_per_doc: DocumentTokens | None = DOCUMENT_TOKENS

    def wanted(self) -> Wanted:
        """What is asked for."""
        texts = [document_text(each, self.rank_fields) for each in self.documents]
        return Wanted(
            self.query,
            texts,
            self.model,
            document_tokens=self.max_tokens_per_doc or DOCUMENT_TOKENS,
            document_chunks=self.max_chunks_per_doc,
        )

    def response(self, ranking: Ranking) -> dict[str, Any]:
        """The body of the response, which clients of Jina can read too."""
        return v1_response(ranking, self.top_n, self.documents if self.return_documents else None)


def document_text(document: str | dict[str, str], fields: list[str] | None = None) -> str:
    """The text of a document that is a string or an object.

    Args:
        document: The document.
        fields: Fields to join, in this order, without those that the object lacks; by default `text`, or all fields of
            an object without it.
    """
    if isinstance(document, str):
        return document
    names = fields or (["text"] if "text" in document else list(document))
    return "\n".join(document[name] for name in names if name in document)


def v1_response(
    ranking: Ranking, top_n: int | None, documents: Sequence[str | dict[str, str]] | None
) -> dict[str, Any]:
    """The response of `/v1/rerank`, with the fields of Cohere and of Jina.

    Args:
        ranking: The ranking.
        top_n: Number of results; None for all.
        documents: The documents of the request, to return them; None not to.
    """
    results: list[dict[str, Any]] = []
    for index, score in ranking.hits(top_n):
        result: dict[str, Any] = {"index": index, "relevance_score": score}
        if documents is not None:
            document = documents[index]
            result["document"] = {"text": document} if isinstance(document, str) else document
        results.append(result)
    usage = {"prompt_tokens": ranking.tokens, "total_tokens": ranking.tokens}
    return {
        "id": str(uuid4()),
        "model": ranking.model,
        "object": "list",
        "results": results,
        "usage": usage,
        "meta": meta(1, ranking),
    }


def meta(version: int, ranking: Ranking) -> dict[str, Any]:
    """The entry `meta` of a response.

    Args:
        version: Version of the interface.
        ranking: The ranking.
    """
    return {
        "api_version": {"version": str(version)},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": ranking.tokens, "output_tokens": 0},
    }


class CohereRank(BaseModel):
    """A ranked document."""

    index: int
    relevance_score: Annotated[float, Field(ge=0, le=1, description="The sigmoid of the logit.")]
    document: dict[str, str] | None = None


class CohereResponse(BaseModel):
    """A response of Cohere."""

    id: str
    results: list[CohereRank]
    meta: dict[str, Any]


class CohereError(BaseModel):
    """An error of Cohere."""

    id: str
    message: str
