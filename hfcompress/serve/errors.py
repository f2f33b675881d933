"""Errors of requests, in the form of each interface."""

from __future__ import annotations

from typing import Any, Literal
from uuid import uuid4

from fastapi.responses import JSONResponse

Kind = Literal[
    "empty", "malformed", "unauthorized", "not_found", "method", "timeout", "too_large", "media_type", "invalid",
    "backend", "overloaded", "disconnected", "internal",
]  # fmt: skip
Dialect = Literal["tei", "infinity", "v1", "cohere"]

# Status and `error_type`; those of text-embeddings-inference where it has them.
STATUS: dict[Kind, tuple[int, str]] = {
    "empty": (400, "empty"),
    "malformed": (400, "validation"),
    "unauthorized": (401, "unauthorized"),
    "not_found": (404, "not_found"),
    "method": (405, "method"),
    "timeout": (408, "timeout"),
    "too_large": (413, "validation"),
    "media_type": (415, "validation"),
    "invalid": (422, "validation"),
    "backend": (424, "backend"),
    "overloaded": (429, "overloaded"),
    "disconnected": (499, "disconnected"),
    "internal": (500, "internal"),
}
KINDS: dict[int, Kind] = {status: kind for kind, (status, _) in STATUS.items()}


class RequestError(Exception):
    """A request that is not answered with a ranking.

    Args:
        kind: What is wrong, which determines the status.
        message: What was received, what is accepted, and what to do, in a sentence or two.
        retry_after: Seconds after which the same request may succeed; None if it never will.
    """

    def __init__(self, kind: Kind, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retry_after = retry_after


def dialect_of(path: str) -> Dialect:
    """The interface that a path belongs to; text-embeddings-inference for paths of none."""
    return {"/v2/rerank": "cohere", "/v1/rerank": "v1"}.get(path, "tei")  # type: ignore[return-value]


def error_response(dialect: Dialect, error: RequestError) -> JSONResponse:
    """The response of an interface to an error."""
    status, _ = STATUS[error.kind]
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.kind == "unauthorized":
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(_body(dialect, error, status), status, headers)


def _body(dialect: Dialect, error: RequestError, status: int) -> dict[str, Any]:
    if dialect == "infinity":
        return {"error": {"message": error.message, "type": STATUS[error.kind][1], "param": None, "code": status}}
    if dialect == "cohere":
        return {"id": str(uuid4()), "message": error.message}
    if dialect == "v1":  # Cohere reads the one, Jina the other
        return {"id": str(uuid4()), "message": error.message, "detail": error.message}
    return {"error": error.message, "error_type": STATUS[error.kind][1]}
