"""Clients that load a reranking server: one at a time, many that wait for answers, and many that do not wait."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from hfcompress.data.load import load_data
from hfcompress.recipe import DataStep, SplitLimits

DOCUMENTS = 20
OPEN_CLIENTS = 256  # connections of an open loop, more than requests that a server lets wait
IDLE = 2.0  # seconds; a connection that rested for longer is opened again, before the server closes it
HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class RankList:
    """A query and its documents.

    Attributes:
        query: The query.
        texts: The documents.
        body: The request as JSON.
    """

    query: str
    texts: list[str]
    body: bytes


class Answer(NamedTuple):
    """An answer of a server.

    Attributes:
        status: Its status.
        seconds: Time of the request.
        tokens: Tokens of its pairs, if the server says so.
        retry_after: Seconds after which to ask again, if the server says so.
        content: Its body.
    """

    status: int
    seconds: float
    tokens: int
    retry_after: int
    content: bytes


def rank_lists(name: str, count: int) -> list[RankList]:
    """Test queries of a data set, each with `DOCUMENTS` candidates.

    Args:
        name: The data set.
        count: Number of queries at most.

    Raises:
        SystemExit: No query has that many candidates.
    """
    limits = SplitLimits(train=1, dev=1, test=count)
    data = load_data(DataStep(sets=[name], candidates=DOCUMENTS, max_queries=limits))
    found = []
    for query, candidates in data.split("test").candidates.items():
        texts = data.documents(query, candidates)
        if len(texts) == DOCUMENTS:
            body = json.dumps({"query": data.queries[query], "texts": texts}).encode()
            found.append(RankList(data.queries[query], texts, body))
    if not found:
        raise SystemExit(f"no test query of {name} has {DOCUMENTS} candidates: choose another --data")
    return found


class Client:
    """A client with a connection that stays open."""

    def __init__(self, port: int):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._used = 0.0

    def ask(self, body: bytes) -> Answer:
        """Ask for a ranking."""
        start = time.perf_counter()
        if start - self._used > IDLE:
            self._connection.close()
        self._connection.request("POST", "/rerank", body, HEADERS)
        response = self._connection.getresponse()
        content = response.read()
        tokens, wait = (int(response.headers.get(name, 0)) for name in ("x-compute-tokens", "retry-after"))
        self._used = time.perf_counter()
        return Answer(response.status, self._used - start, tokens, wait, content)

    def get(self, path: str) -> str:
        """The content of a path."""
        self._connection.close()
        self._connection.request("GET", path)
        return self._connection.getresponse().read().decode()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def one_client(port: int, lists: Sequence[RankList]) -> list[Answer]:
    """Ask for each list, one after the other."""
    client = Client(port)
    answers = [client.ask(each.body) for each in lists]
    client.close()
    return answers


def closed_loop(port: int, lists: Sequence[RankList], clients: int, seconds: float) -> tuple[list[Answer], float]:
    """Clients that each wait for an answer before they ask again.

    Returns:
        The answers, and the seconds until the last one.
    """
    answers: list[Answer] = []
    start = time.perf_counter()

    def work(seed: int) -> None:
        client, rng = Client(port), random.Random(seed)
        while time.perf_counter() - start < seconds:
            answers.append(client.ask(rng.choice(lists).body))
        client.close()

    _in_threads([partial(work, seed) for seed in range(clients)])
    return answers, time.perf_counter() - start


def open_loop(port: int, lists: Sequence[RankList], rate: float, seconds: float) -> tuple[list[Answer], float]:
    """Requests at fixed times, whether earlier ones were answered or not.

    Args:
        port: Port of the server.
        lists: What is asked for, in turns.
        rate: Requests a second.
        seconds: Time in which they start.

    Returns:
        The answers, and the largest delay of a start in seconds, which is small if enough clients were free.
    """
    answers: list[Answer] = []
    numbers, lock = iter(range(int(rate * seconds))), threading.Lock()
    late = [0.0]
    start = time.perf_counter()

    def work() -> None:
        client = Client(port)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                client.close()
                return
            wait = start + number / rate - time.perf_counter()
            late.append(-wait)
            time.sleep(max(0.0, wait))
            answers.append(client.ask(lists[number % len(lists)].body))

    _in_threads([work] * OPEN_CLIENTS)
    return answers, max(late)


def _in_threads(works: Sequence[Callable[[], None]]) -> None:
    """Run functions at the same time, and raise what one of them raised."""
    with ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(work) for work in works]:
            future.result()
