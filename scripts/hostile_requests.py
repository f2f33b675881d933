"""Requests that no client should send: kinds of them, chosen by a seed, and the statuses that they must get."""

from __future__ import annotations

import json
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")
GOOD = {"query": "a", "texts": ["b"], "documents": ["b"]}
CLOSED = "closed"  # the server closed the connection without an answer
CLIENTS = 32
PATIENCE = 60.0  # seconds until a client gives up
DRIP = 0.5  # seconds between two bytes of a slow client


@dataclass(frozen=True)
class Hostile:
    """A hostile request.

    Attributes:
        kind: Name of its kind.
        content: Its bytes.
        statuses: Statuses that are right.
        drip: Whether more bytes follow, one by one, until the server answers.
        leave: Whether the client goes away without waiting for the answer.
    """

    kind: str
    content: bytes
    statuses: frozenset[str]
    drip: bool = False
    leave: bool = False


def request(
    body: bytes, *headers: str, path: str = "/rerank", method: str = "POST", length: int | None = None
) -> bytes:
    """Bytes of a request.

    Args:
        body: Its body.
        *headers: More headers; a Content-Length or Transfer-Encoding among them replaces the right one.
        path: Its path.
        method: Its method.
        length: Announced length of the body; by default the right one.
    """
    lines = [f"{method} {path} HTTP/1.1", "Host: a", "Connection: close"]
    if not any(header.startswith("Content-Type") for header in headers):
        lines.append("Content-Type: application/json")
    if length is not None or not any(header.startswith(("Content-Length", "Transfer")) for header in headers):
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


def _json(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def _in_query(text: bytes) -> bytes:
    return b'{"query": ' + text + b', "texts": ["b"], "documents": ["b"]}'


def _chunked(size: int) -> bytes:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    return chunk * (size // 0x10000) + b"0\r\n\r\n"


NO_TEXT: tuple[object, ...] = (1, None, {}, True, 0.5, [["a"]], [{}])
NO_TEXTS: tuple[object, ...] = ("a", 1, None, {}, [1], [None], [["a"]], True, {"0": "a"})
CHUNKED = "Transfer-Encoding: chunked"

# Bodies of JSON requests by kind, and the statuses that they must get.
BODIES: dict[str, tuple[Callable[[random.Random], bytes], str]] = {
    "query of a wrong type": (lambda rng: _json(query=rng.choice(NO_TEXT)), "422"),
    "documents of a wrong type": (lambda rng: _wrong_documents(rng.choice(NO_TEXTS)), "422"),
    "no object": (lambda rng: json.dumps(rng.choice([[], [GOOD], "a", 1, None, True])).encode(), "422"),
    "field missing": (lambda rng: _without(rng.choice([["query"], ["texts", "documents"]])), "422"),
    "key twice": (lambda rng: b'{"query": "a", "query": 5, "texts": ["b"], "documents": ["b"]}', "422"),
    "blank query": (lambda rng: _json(query=rng.choice(["", " ", "\t\n", "\u2003"])), "400"),
    "no documents": (lambda rng: _json(texts=[], documents=[]), "400"),
    "too many documents": (lambda rng: _json(texts=["a"] * 1001, documents=["a"] * 1001), "413"),
    "unknown model": (lambda rng: _json(model=rng.choice(["../../etc/passwd", "x" * 1000, "\u0000"])), "404"),
    "model of a wrong type": (lambda rng: _json(model=rng.choice([1, [], {}, True])), "422"),
    "deep arrays": (lambda rng: _in_query(_nested(b"[", b"", b"]", rng)), "400"),
    "deep objects": (lambda rng: _in_query(_nested(b'{"a":', b"1", b"}", rng)), "400"),
    "deep and open": (lambda rng: b"[" * rng.choice([1000, 100_000]), "400"),
    "invalid UTF-8": (lambda rng: _in_query(b'"' + rng.choice([b"\xff\xfe", b"\xc3", b"\xed\xa0\x80"]) + b'"'), "400"),
    "UTF-16": (lambda rng: json.dumps(GOOD).encode(rng.choice(["utf-16", "utf-16-le", "utf-32"])), "400"),
    "byte order mark": (lambda rng: json.dumps(GOOD).encode("utf-8-sig"), "400"),
    "NaN and infinity": (lambda rng: _in_query(rng.choice([b"NaN", b"Infinity", b"-Infinity"])), "400"),
    "lone surrogate": (lambda rng: _in_query(rng.choice([rb'"\ud800"', rb'"a\udfff"', rb'"\ud800\u0041"'])), "400"),
    "huge number": (lambda rng: _in_query(rng.choice([b"9" * 5000, b"1e999999", b"-" + b"9" * 100])), "400 422"),
    "cut JSON": (lambda rng: _cut(rng), "400"),
    "random bytes": (lambda rng: b"\x00" + rng.randbytes(rng.randrange(500)), "400"),
    "empty body": (lambda rng: b"", "400"),
    "strange texts": (lambda rng: _strange(rng), "200"),
}  # fmt: skip


def _wrong_documents(value: object) -> bytes:
    return _json(texts=value, documents=value)


def _without(names: list[str]) -> bytes:
    return json.dumps({name: value for name, value in GOOD.items() if name not in names}).encode()


def _nested(start: bytes, inner: bytes, end: bytes, rng: random.Random) -> bytes:
    depth = rng.choice([300, 1000, 100_000])
    return start * depth + inner + end * depth


def _cut(rng: random.Random) -> bytes:
    whole = json.dumps(GOOD).encode()
    return whole[: rng.randrange(1, len(whole))]


def _strange(rng: random.Random) -> bytes:
    texts = ["\u0000", "\u202e\u200f", "\U0001f600" * 50, "x" * 20_000, "\n" * 1000, "\u0300" * 500, "\ufffe", ""]
    return json.dumps({"query": "q\u0000\u202e", "texts": texts, "documents": texts}).encode()


LINE = b"POST /rerank HTTP/1.1\r\nHost: a\r\n"
MEDIA_TYPES = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "a/b/c;;=", "json")
WEBSOCKET = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAA")
LENGTHS = ("x", "-1", "1e3", "0x2")
OTHER_PATHS = ("/../../etc/passwd", "/rerank/x", "/%00", "/v3/rerank", "/Rerank")
ASSETS = ("/docs-assets/../core.py", "/docs-assets/%2e%2e/core.py", "/docs-assets/%00", "/docs-assets//etc/passwd")

# Requests that are wrong as HTTP by kind, made for a path, and the statuses that they must get.
HTTP: dict[str, tuple[Callable[[random.Random, str], bytes], str]] = {
    "other media type": (lambda rng, p: request(_json(), f"Content-Type: {rng.choice(MEDIA_TYPES)}", path=p), "415"),
    "other method": (lambda rng, p: request(b"", path=p, method=rng.choice(["GET", "PUT", "DELETE", "BREW"])), "405"),
    "other path": (lambda rng, p: request(_json(), path=rng.choice(OTHER_PATHS)), "404"),
    "file": (lambda rng, p: request(b"", path=rng.choice(ASSETS), method="GET"), "404"),
    "websocket": (lambda rng, p: request(b"", *WEBSOCKET, path=p, method="GET"), "405"),
    "large body announced": (lambda rng, p: request(b"{}", path=p, length=rng.choice([9 << 20, 10**12])), "413"),
    "large body in chunks": (lambda rng, p: request(_chunked(9 << 20), CHUNKED, path=p), "413 429 closed"),
    "bad length": (lambda rng, p: request(b"{}", f"Content-Length: {rng.choice(LENGTHS)}", path=p), "400"),
    "two lengths": (lambda rng, p: request(b"{}", "Content-Length: 7", path=p, length=2), "400"),
    "bad chunks": (lambda rng, p: request(b"zz\r\nabc\r\n0\r\n\r\n", CHUNKED, path=p), "400"),
    "unknown encoding": (lambda rng, p: request(_json(), "Transfer-Encoding: gzip", path=p), "400 501"),
    "header with NUL": (lambda rng, p: LINE + b"X-A: \x00\r\n\r\n", "400"),
    "header without colon": (lambda rng, p: LINE + b"bad header\r\n\r\n", "400"),
    "long header": (lambda rng, p: request(_json(), "X-A: " + "a" * 600_000, path=p), "400 431 closed"),
    "long path": (lambda rng, p: request(_json(), path="/" + "a" * 600_000), "400 414 closed"),
    "path not in ASCII": (lambda rng, p: b"POST /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    "other version": (lambda rng, p: b"POST / HTTP/9.9\r\nHost: a\r\n\r\n", "400 405 505"),
    "no HTTP": (lambda rng, p: b"\x00" + rng.randbytes(100) + b"\r\n\r\n", "400"),
    "many headers": (lambda rng, p: request(_json(), *(f"X-{number}: a" for number in range(1000)), path=p), "200"),
}  # fmt: skip


def slow_requests() -> list[Hostile]:
    """A slow client of each kind; each takes as long as the server lets it."""
    start = b"POST /rerank HTTP/1.1\r\nHost: a\r\nX-A: "
    return [
        Hostile("slow headers", start, frozenset({CLOSED, "408"}), drip=True),
        Hostile("slow body", request(b'{"query": "', length=10_000), frozenset({"408"}), drip=True),
    ]


def hostile_requests(count: int, seed: int) -> Iterator[Hostile]:
    """Requests in random order.

    Args:
        count: Number of requests. One in 500 is slow, and one in 50 is from a client that goes away.
        seed: The same seed gives the same requests.
    """
    rng = random.Random(seed)
    for number in range(count):
        if number % 500 == 499:
            yield slow_requests()[number // 500 % 2]
        elif number % 50 == 49:
            content = request(_strange(rng), path=rng.choice(PATHS))
            yield Hostile(
                "client goes away", content[: rng.randrange(1, len(content) + 1)], frozenset({CLOSED}), leave=True
            )
        else:
            yield _hostile(rng)


def _hostile(rng: random.Random) -> Hostile:
    kind, path = rng.choice([*BODIES, *HTTP]), rng.choice(PATHS)
    if kind in BODIES:
        make, statuses = BODIES[kind]
        content = request(make(rng), path=path)
    else:
        build, statuses = HTTP[kind]
        content = build(rng, path)
    return Hostile(kind, content, frozenset(statuses.split()))


def status_of(port: int, hostile: Hostile) -> str:
    """The status of the answer; `CLOSED` without one, `silent` if the server leaves the connection open."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        try:
            with suppress(ConnectionError):  # refused before all was read: the answer may have come
                connection.sendall(hostile.content)
            if hostile.leave:
                return CLOSED
            answer = _answer(connection, hostile.drip)
        except ConnectionError:
            return CLOSED
        except TimeoutError:
            return "silent"
    if not answer:
        return CLOSED
    return answer.split(b" ")[1].decode("latin-1") if answer.startswith(b"HTTP/") else "no HTTP"


def _answer(connection: socket.socket, drip: bool) -> bytes:
    """The first bytes of the answer, while further bytes are sent one by one if `drip`."""
    end = time.monotonic() + PATIENCE
    connection.settimeout(DRIP if drip else PATIENCE)
    while True:
        try:
            return connection.recv(64)
        except TimeoutError:
            if not drip or time.monotonic() > end:
                raise
        connection.sendall(b"a")


def attack(port: int, count: int, seed: int) -> tuple[dict[str, Counter[str]], dict[str, Counter[str]]]:
    """Send hostile requests from several clients at a time.

    Args:
        port: Port of the server on the loopback.
        count: Number of requests.
        seed: Seed of their choice.

    Returns:
        Statuses by kind, and those of them that are wrong.
    """
    found: dict[str, Counter[str]] = {}
    wrong: dict[str, Counter[str]] = {}
    requests, lock = hostile_requests(count, seed), Lock()

    def client() -> None:
        while True:
            with lock:
                hostile = next(requests, None)
            if hostile is None:
                return
            status = status_of(port, hostile)
            with lock:
                found.setdefault(hostile.kind, Counter())[status] += 1
                if status not in hostile.statuses:
                    wrong.setdefault(hostile.kind, Counter())[status] += 1

    with ThreadPoolExecutor(CLIENTS) as pool:
        for future in [pool.submit(client) for _ in range(CLIENTS)]:
            future.result()
    return found, wrong
