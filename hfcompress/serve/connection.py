"""Connections, which send at once, and are closed when their clients send too slowly."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class TimedProtocol(H11Protocol):
    """uvicorn's protocol, with a time limit for what a client sends while no request of it is in progress.

    uvicorn limits only the silence between two requests, so headers that arrive byte by byte would hold a connection
    forever, and so would a body that arrives after its request was refused. Bodies that a request waits for have a
    limit of their own, in `JsonRequest.read`.

    Attributes:
        header_seconds: Seconds from the start of the connection, or from the last response, to the end of the next
            headers.
    """

    header_seconds = 10.0
    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Send each packet at once, and start the limit of the first headers."""
        # asyncio does so for sockets that it opens itself only. Otherwise a response waits 40 ms for an acknowledgement
        # between its headers and its body.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self._start_limit()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the limit."""
        self._end_limit()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Start the limit of the next headers."""
        super().on_response_complete()
        self._start_limit()

    def _start_limit(self) -> None:
        self._end_limit()
        if not self.transport.is_closing():
            self._limit = self.loop.call_later(self.header_seconds, self._close_if_waiting)

    def _end_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _close_if_waiting(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def timed_protocol(header_seconds: float) -> type[Any]:
    """A protocol for `uvicorn.Config(http=...)`.

    Args:
        header_seconds: Its limit.
    """
    return type("TimedProtocol", (TimedProtocol,), {"header_seconds": header_seconds})
