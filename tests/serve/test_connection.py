"""Clients that send slowly, on a real connection to uvicorn."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, ClassVar

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

import uvicorn

from hfcompress.serve.connection import timed_protocol

SECONDS = 0.5
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers at once, whether the body is there or not; `/slow` after longer than the limit."""
    if scope["path"] == "/slow":
        await asyncio.sleep(2 * SECONDS)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class Recorded(timed_protocol(SECONDS)):  # type: ignore[misc]
    """Keeps whether its sockets send at once."""

    at_once: ClassVar[list[bool]] = []

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        accepted = transport.get_extra_info("socket")
        self.at_once.append(bool(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))


@pytest.fixture(scope="module")
def connect() -> Iterator[Callable[[], socket.socket]]:
    config = uvicorn.Config(app, http=Recorded, lifespan="off", log_level="critical")
    server, listening = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield lambda: socket.create_connection(listening.getsockname(), timeout=20)
    server.should_exit = True
    thread.join()


def answer(connection: socket.socket) -> bytes:
    """All of an answer."""
    found = b""
    while not found.endswith(b"ok"):
        received = connection.recv(1000)
        assert received, "the connection was closed"
        found += received
    return found


def drip_until_closed(connection: socket.socket) -> None:
    """Send bytes one by one until the server closes the connection."""
    start = time.monotonic()
    connection.settimeout(0.05)
    with suppress(ConnectionError):
        while time.monotonic() - start < 60:
            connection.sendall(b"a")
            with suppress(TimeoutError):
                if not connection.recv(1000):
                    return
        raise AssertionError("the connection is still open")


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: "])
def test_slow_headers(connect: Callable[[], socket.socket], start: bytes) -> None:
    begun = time.monotonic()
    with connect() as connection:
        connection.sendall(start)
        drip_until_closed(connection)
    assert time.monotonic() - begun >= SECONDS


@pytest.mark.parametrize("request_", [REQUEST, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"])
def test_slow_bytes_after_a_response(connect: Callable[[], socket.socket], request_: bytes) -> None:
    """The headers of a second request, and a body that was not waited for."""
    begun = time.monotonic()
    with connect() as connection:
        connection.sendall(request_)
        answer(connection)
        drip_until_closed(connection)
    assert time.monotonic() - begun >= SECONDS


def test_a_request_in_progress_has_its_time_and_more_may_follow(connect: Callable[[], socket.socket]) -> None:
    with connect() as connection:
        for path in (b"/slow", b"/", b"/slow"):
            connection.sendall(REQUEST.replace(b"/ ", path + b" "))
            assert answer(connection).startswith(b"HTTP/1.1 200")


def test_responses_are_sent_at_once(connect: Callable[[], socket.socket]) -> None:
    """Otherwise a body waits 40 ms for the acknowledgement of its headers."""
    with connect() as connection:
        connection.sendall(REQUEST)
        answer(connection)
    assert Recorded.at_once and all(Recorded.at_once)
