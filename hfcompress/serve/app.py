"""The application: its routes, its errors and what it does at start and end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from importlib.resources import files
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import Discriminator, Tag
from starlette.exceptions import HTTPException

from hfcompress.serve.auth import ASSETS, BearerKey
from hfcompress.serve.body import BoundedRoute, HeldBytes
from hfcompress.serve.cohere import V1_ONLY, CohereError, CohereRequest, CohereResponse, CohereV1Request
from hfcompress.serve.errors import KINDS, Kind, RequestError, dialect_of, error_response
from hfcompress.serve.infinity import InfinityRequest, InfinityResponse
from hfcompress.serve.info import Info, info
from hfcompress.serve.jina import JinaError, JinaRequest, JinaResponse
from hfcompress.serve.models import Models
from hfcompress.serve.ranking import Ranking, Wanted, rank
from hfcompress.serve.tei import TeiError, TeiRank, TeiRequest

logger = logging.getLogger(__name__)

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
REFUSALS = (400, 401, 404, 408, 413, 415, 422, 424, 429)
EMPTY = frozenset({"too_short", "string_too_short", "string_pattern_mismatch"})


class _Asking(Protocol):
    """A request of any interface."""

    def wanted(self) -> Wanted: ...
    def response(self, ranking: Ranking) -> Any: ...


def create_app(models: Models) -> FastAPI:
    """The application that serves models.

    Args:
        models: The models, which must be loaded; they are started and closed with the application.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        models.start()
        watching = asyncio.get_running_loop().create_task(models.watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await models.close()

    # The key is checked by the middleware; this is its place in /docs.
    key = [Depends(HTTPBearer(auto_error=False))] if models.settings.api_key else []
    # The scripts of /docs come from this server, not from a CDN.
    app = FastAPIOffline(
        redoc_url=None, static_url=ASSETS, title="hfcompress", version=version("hfcompress"), lifespan=lifespan
    )
    app.state.models, app.state.held = models, HeldBytes()
    app.include_router(_open_routes())
    app.include_router(_state_routes(models), dependencies=key)
    app.include_router(_rank_routes(models), dependencies=key)
    for kind in (RequestError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _answer_error)
    if models.settings.api_key:
        app.add_middleware(BearerKey, key=models.settings.api_key)
    return app


def _open_routes() -> APIRouter:
    routes = APIRouter()
    page = files("hfcompress.serve").joinpath("page.html").read_text(encoding="utf-8")

    @routes.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def first_page() -> Response:
        return HTMLResponse(page, headers=PAGE_HEADERS)

    @routes.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server accepts requests."""
        return {"status": "ok"}

    return routes


def _state_routes(models: Models) -> APIRouter:
    routes = APIRouter()

    @routes.get("/info", responses={401: {"model": TeiError}})
    async def model_info() -> Info:
        """The models and the limits; the first level describes the first model, as in text-embeddings-inference."""
        return info(models)

    @routes.get("/metrics", response_class=Response, responses={401: {"model": TeiError}})
    async def metrics() -> Response:
        """Metrics in the format of Prometheus."""
        return Response(models.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


def _rerank_form(body: Any) -> str | None:
    if isinstance(body, dict):
        return "infinity" if "documents" in body and "texts" not in body else "tei"
    return None


def _v1_form(body: Any) -> str | None:
    if isinstance(body, dict):
        return "cohere" if body.keys() & set(V1_ONLY) else "jina"
    return None


RerankBody = Annotated[
    Annotated[TeiRequest, Tag("tei")] | Annotated[InfinityRequest, Tag("infinity")], Discriminator(_rerank_form)
]
V1Body = Annotated[
    Annotated[JinaRequest, Tag("jina")] | Annotated[CohereV1Request, Tag("cohere")], Discriminator(_v1_form)
]


def _rank_routes(models: Models) -> APIRouter:
    routes = APIRouter(route_class=BoundedRoute)

    async def answer(request: Request, body: _Asking) -> Response:
        ranking = await rank(request, models, body.wanted())
        return JSONResponse(body.response(ranking), headers=ranking.headers)

    @routes.post("/rerank", response_model=list[TeiRank] | InfinityResponse, responses=_refusals(TeiError))
    async def rerank(request: Request, body: RerankBody) -> Response:
        """Rank texts as text-embeddings-inference (with `texts`) or Infinity (with `documents`) does."""
        request.state.infinity = isinstance(body, InfinityRequest)
        return await answer(request, body)

    @routes.post("/v1/rerank", response_model=JinaResponse, responses=_refusals(JinaError))
    async def rerank_v1(request: Request, body: V1Body) -> Response:
        """Rank documents as Jina, or version 1 of Cohere, does."""
        return await answer(request, body)

    @routes.post("/v2/rerank", response_model=CohereResponse, responses=_refusals(CohereError))
    async def rerank_v2(request: Request, body: CohereRequest) -> Response:
        """Rank documents as version 2 of Cohere does."""
        return await answer(request, body)

    return routes


def _refusals(model: type) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": model} for status in REFUSALS}


async def _answer_error(request: Request, error: Exception) -> Response:
    """Answer any error in the form of the interface."""
    dialect = dialect_of(request.url.path)
    if dialect == "tei" and _is_infinity(request, error):
        dialect = "infinity"
    found = _as_request_error(error)
    if request.method == "POST":
        request.app.state.models.metrics.count("te_request_failure", "err", found.kind)
    response = error_response(dialect, found)
    if isinstance(error, HTTPException) and error.headers:  # `Allow` of 405
        response.headers.update(error.headers)
    return response


def _is_infinity(request: Request, error: Exception) -> bool:
    if isinstance(error, RequestValidationError):
        return _rerank_form(error.body) == "infinity"
    return getattr(request.state, "infinity", False)


def _as_request_error(error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    if isinstance(error, RequestValidationError):
        faults = error.errors()
        kind: Kind = "empty" if {fault["type"] for fault in faults} <= EMPTY else "invalid"
        return RequestError(kind, "; ".join(_in_words(fault) for fault in faults[:3]))
    if isinstance(error, HTTPException):
        return RequestError(KINDS.get(error.status_code, "invalid"), str(error.detail))
    logger.error("A request failed", exc_info=error)
    return RequestError("internal", "internal error")


def _in_words(fault: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in fault["loc"] if part not in ("body", "tei", "infinity", "jina", "cohere"))
    return f"`{place}`: {fault['msg']}" if place else str(fault["msg"])
