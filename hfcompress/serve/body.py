"""Bodies of requests, read within limits of size and time, and parsed strictly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hfcompress.serve.errors import RequestError
from hfcompress.serve.settings import ServeSettings

JSON_TYPE = "application/json"


class HeldBytes:
    """Bytes of all bodies that the server holds at the moment."""

    def __init__(self) -> None:
        self.total = 0


class JsonRequest(Request):
    """A request whose body was read by `read`."""

    def __init__(self, request: Request):
        super().__init__(request.scope, request.receive)
        self.size = 0
        self._content = b""
        self._value: Any = None

    async def body(self) -> bytes:
        """The body."""
        return self._content

    async def json(self) -> Any:
        """The parsed body."""
        return self._value

    async def read(self, settings: ServeSettings, held: HeldBytes) -> None:
        """Read and parse the body.

        Args:
            settings: Limits.
            held: Counts what this request holds, in `size`, too; the caller subtracts it again.

        Raises:
            RequestError: It is too large, too slow, or no JSON: not in UTF-8, with NaN or Infinity, with a lone
                surrogate, or nested too deeply.
        """
        if (kind := self.headers.get("content-type", "").partition(";")[0].strip().lower()) != JSON_TYPE:
            raise RequestError("media_type", f"Content-Type is {kind!r}; expected {JSON_TYPE}")
        try:
            async with asyncio.timeout(settings.body_seconds):
                self._content = await self._read(settings, held)
        except TimeoutError:
            raise RequestError("timeout", f"the body did not arrive within {settings.body_seconds:g} s") from None
        except ClientDisconnect:
            raise RequestError("disconnected", "the client went away") from None
        try:
            self._value = from_json(self._content, allow_inf_nan=False)
        except ValueError as error:
            raise RequestError("malformed", f"the body is not valid JSON: {error}") from None

    async def _read(self, settings: ServeSettings, held: HeldBytes) -> bytes:
        announced = self.headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > settings.max_bytes:
            raise _too_large(settings)
        chunks = []
        async for chunk in self.stream():
            self.size += len(chunk)
            held.total += len(chunk)
            if self.size > settings.max_bytes:
                raise _too_large(settings)
            if held.total > settings.max_body_bytes:
                raise RequestError("overloaded", "too many large requests at a time. Try again in 1 s.", 1)
            chunks.append(chunk)
        return b"".join(chunks)


class BoundedRoute(APIRoute):
    """A route that reads JSON within the limits of the server before FastAPI validates it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of FastAPI, behind the limits."""
        handler = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            state = request.app.state
            checked = JsonRequest(request)
            try:
                await checked.read(state.models.settings, state.held)
                return await handler(checked)
            finally:
                state.held.total -= checked.size

        return bounded


def _too_large(settings: ServeSettings) -> RequestError:
    return RequestError("too_large", f"the body has more than the maximum of {settings.max_bytes} bytes")
