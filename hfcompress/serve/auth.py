"""The key that clients must send, if the server has one."""

from __future__ import annotations

import hmac
from hashlib import sha256

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from hfcompress.serve.errors import RequestError, dialect_of, error_response

# Probes have no key, and pages of a browser ask for it themselves; they show nothing of the models.
OPEN = frozenset({"/", "/health", "/docs", "/openapi.json"})
ASSETS = "/docs-assets"  # scripts and styles of /docs


class BearerKey:
    """ASGI middleware that refuses requests without the key, before their bodies are read.

    Args:
        app: The application.
        key: The key; compared in constant time.
    """

    def __init__(self, app: ASGIApp, key: str):
        self._app = app
        self._digest = sha256(key.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or forward a request."""
        if scope["type"] == "http" and not _is_open(scope["path"]) and not self._allowed(Headers(scope=scope)):
            error = RequestError("unauthorized", "a valid key is required: Authorization: Bearer KEY")
            await error_response(dialect_of(scope["path"]), error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _allowed(self, headers: Headers) -> bool:
        kind, _, key = headers.get("authorization", "").partition(" ")
        # Digests have one length, so that the time does not tell that of the key.
        same = hmac.compare_digest(sha256(key.strip().encode()).digest(), self._digest)
        return same and kind.lower() == "bearer"


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(f"{ASSETS}/")
