"""Measure `hfcompress serve` on the loopback, and compare it with what it has to reach.

    python scripts/serve_load.py out/quickstart

Requests have 20 documents: those of test queries of `--data`, by default the built-in data, which are made from the
installed packages. The server runs in a process of its own, without a cache of tokenized documents unless said
otherwise, and this process has its clients, so both share the cores. The parts, of which `--only` chooses:

- latency: the median time of one client's requests is at most 3 ms above that of `Ranker.rank` for the same lists.
- throughput: 16 clients get at least 0.9 times the documents a second of `Ranker.score` for all lists in one call.
- overload: for `--seconds` seconds at twice the capacity, memory stops growing, no status is other than 200 and 429
  with Retry-After, and the 95th percentile of the accepted requests is below twice the time of a full queue and of one
  request together. Afterwards one client is as fast as before.
- hostile: `--hostile` requests, of kinds that the seed chooses, get the right statuses, and the server works as before.
- peer: at 16 clients at least 2 times the documents a second of sentence-transformers behind the simplest FastAPI
  handler, with the same graph; in PyTorch if it cannot open the graph. Its packages are installed in an environment of
  their own.
- cache: the same lists again, with and without the cache of tokenized documents. Only reported.

The exit code is 1 if a part misses what it has to reach.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
from bars import Row, judged, table, verdict
from environments import APART, CACHE
from hostile_requests import attack
from http_peer import peer_command
from load_clients import DOCUMENTS, Answer, Client, RankList, closed_loop, one_client, open_loop, rank_lists
from served import Served, running, serve_command

from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.systems import resolve_model
from hfcompress.rankers.base import BatchedRanker, RankerOptions
from hfcompress.utils.quiet import silence_libraries

CLIENTS = 16
ROUNDS = 3  # in which the server and the ranker take turns
LATENCY_BAR, THROUGHPUT_BAR, PEER_BAR = 3.0, 0.9, 2.0
GROWTH_BAR = 1.1  # of memory, between the first and the last third of the overload
AGAIN_BAR = 1.2  # of the latency after the overload
NO_CACHE = ("--cache-mb", "0")


@dataclass(frozen=True)
class Setup:
    """What all parts need.

    Attributes:
        folder: The folder to serve.
        candidate: The file and the runtime that are served.
        lists: Queries with their documents.
        seconds: Seconds of the overload.
        load_seconds: Seconds of each other load.
        hostile: Number of hostile requests.
        seed: Seed of their choice.
        work: Folder of the environment of the peer.
    """

    folder: str
    candidate: Candidate
    lists: list[RankList]
    seconds: float
    load_seconds: float
    hostile: int
    seed: int
    work: Path

    def ranker(self) -> BatchedRanker:
        """The ranker itself, ready to score."""
        ranker = self.candidate.ranker(None, RankerOptions())
        ranker.rank(self.lists[0].query, self.lists[0].texts)
        return ranker

    @contextmanager
    def server(self, *options: str) -> Iterator[Served]:
        """The server, which has answered some requests."""
        with running(serve_command(self.folder, *(options or NO_CACHE))) as served:
            one_client(served.port, self.lists[:10])
            yield served


def latency(setup: Setup) -> list[Row]:
    """One client against the ranker itself, in turns."""
    ranker, alone, asked = setup.ranker(), list[float](), list[Answer]()
    with setup.server() as served:
        for _ in range(ROUNDS):
            for each in setup.lists:
                start = time.perf_counter()
                ranker.rank(each.query, each.texts)
                alone.append(time.perf_counter() - start)
            asked += one_client(served.port, setup.lists)
    own, through = 1000 * statistics.median(alone), median_ms(asked)
    return [
        Row("latency", "p50 of the ranker", f"{own:.2f} ms"),
        Row("latency", "p50 of /rerank, one client", f"{through:.2f} ms"),
        judged("latency", "difference", through - own, "{:.2f} ms", LATENCY_BAR, at_most=True),
    ]


def throughput(setup: Setup) -> list[Row]:
    """Many clients against one large call of the ranker, in turns."""
    ranker, alone, rates = setup.ranker(), list[float](), list[float]()
    pairs = [(each.query, text) for each in setup.lists for text in each.texts]
    with setup.server() as served:
        for _ in range(ROUNDS):
            start = time.perf_counter()
            ranker.score(pairs)
            alone.append(len(pairs) / (time.perf_counter() - start))
            rates.append(DOCUMENTS * capacity(served, setup)[0])
    own, through = statistics.median(alone), statistics.median(rates)
    return [
        Row("throughput", f"ranker, {len(pairs)} pairs in one call", f"{own:.0f} documents/s"),
        Row("throughput", f"{CLIENTS} clients", f"{through:.0f} documents/s"),
        judged("throughput", "ratio", through / own, "{:.2f}", THROUGHPUT_BAR),
    ]


def overload(setup: Setup) -> list[Row]:
    """Twice the capacity for a time, then one client again."""
    with setup.server() as served:
        before = median_ms(one_client(served.port, setup.lists))
        rate, tokens = capacity(served, setup)
        full_queue = json.loads(Client(served.port).get("/info"))["max_queue_tokens"] / (rate * tokens)
        with memory_of(served) as memory:
            answers, late = open_loop(served.port, setup.lists, 2 * rate, setup.seconds)
        time.sleep(1.0)
        again = median_ms(one_client(served.port, setup.lists))
    statuses = Counter(answer.status for answer in answers)
    accepted = [answer.seconds for answer in answers if answer.status == 200]
    third = max(1, len(memory) // 3)
    growth = max(memory[-third:]) / max(memory[:third])
    without = sum(answer.status == 429 and not answer.retry_after for answer in answers)
    other = sum(count for status, count in statuses.items() if status not in (200, 429))
    return [
        Row(
            "overload", "load", f"{2 * rate:.0f} requests/s for {setup.seconds:g} s, at most {1000 * late:.0f} ms late"
        ),
        Row("overload", "statuses", ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))),
        judged("overload", "statuses that are neither 200 nor 429", other, "{:.0f}", 0, at_most=True),
        judged("overload", "429 without Retry-After", without, "{:.0f}", 0, at_most=True),
        Row("overload", "memory at the start and at its peak", f"{memory[0]:.0f} and {max(memory):.0f} MB"),
        judged("overload", "peak of the last third to that of the first", growth, "{:.3f}", GROWTH_BAR, at_most=True),
        Row("overload", "time of a full queue", f"{full_queue:.2f} s"),
        judged(
            "overload",
            "p95 of accepted requests",
            float(np.percentile(accepted, 95)) if accepted else float("inf"),
            "{:.2f} s",
            2 * (full_queue + before / 1000),
            at_most=True,
        ),
        judged("overload", "p50 of one client, after to before", again / before, "{:.2f}", AGAIN_BAR, at_most=True),
    ]


def hostile(setup: Setup) -> list[Row]:
    """Requests that no client should send."""
    with setup.server() as served:
        before = scores(served, setup)
        with memory_of(served) as memory:
            found, wrong = attack(served.port, setup.hostile, setup.seed)
        time.sleep(1.0)
        works = served.process.poll() is None and scores(served, setup) == before
        faults = served.log.read_text(encoding="utf-8", errors="replace").count("Traceback")
    total: Counter[str] = sum(found.values(), Counter())
    errors = sum(count for status, count in total.items() if status.startswith("5") or status == "silent")
    listed = "; ".join(f"{kind}: {dict(statuses)}" for kind, statuses in sorted(wrong.items()))
    return [
        Row("hostile", f"{sum(total.values())} requests of {len(found)} kinds", str(dict(sorted(total.items())))),
        judged("hostile", "5xx and silence", errors, "{:.0f}", 0, at_most=True),
        judged("hostile", "tracebacks in the log", faults, "{:.0f}", 0, at_most=True),
        Row("hostile", "memory at the start and at its peak", f"{memory[0]:.0f} and {max(memory):.0f} MB"),
        Row("hostile", "wrong statuses", listed or "none", "none", not wrong),
        Row("hostile", "scores afterwards", "the same" if works else "others", "the same", works),
    ]


def peer(setup: Setup) -> list[Row]:
    """The simplest handler around sentence-transformers, in turns with this server."""
    folder = str(Path(setup.candidate.folder).resolve())
    command, note = peer_command(folder, setup.candidate.runtime, setup.candidate.path, setup.work)
    ours, theirs = list[float](), list[float]()
    for _ in range(ROUNDS):
        with running(command, **APART) as served:
            one_client(served.port, setup.lists[:10])
            theirs.append(DOCUMENTS * capacity(served, setup)[0])
        with setup.server() as served:
            ours.append(DOCUMENTS * capacity(served, setup)[0])
    return [
        Row("peer", "graph of sentence-transformers", note),
        Row("peer", f"sentence-transformers, {CLIENTS} clients", f"{statistics.median(theirs):.0f} documents/s"),
        Row("peer", f"hfcompress serve, {CLIENTS} clients", f"{statistics.median(ours):.0f} documents/s"),
        judged("peer", "ratio", statistics.median(ours) / statistics.median(theirs), "{:.2f}", PEER_BAR),
    ]


def cache(setup: Setup) -> list[Row]:
    """The same documents again, with and without the cache."""
    rows = []
    for name, options in (("without a cache", NO_CACHE), ("with a cache", ("--cache-mb", "64"))):
        with setup.server(*options) as served:
            one_client(served.port, setup.lists)
            again = median_ms(one_client(served.port, setup.lists))
            rate = DOCUMENTS * capacity(served, setup)[0]
            metrics = Client(served.port).get("/metrics")
        rows += [
            Row("cache", f"p50 of one client, {name}", f"{again:.2f} ms"),
            Row("cache", f"{CLIENTS} clients, {name}", f"{rate:.0f} documents/s"),
        ]
    rate, size = (
        float(re.findall(rf"^hfcompress_cache_{name}\S* (\S+)$", metrics, re.M)[0]) for name in ("hit_rate", "bytes")
    )
    return [*rows, Row("cache", "hit rate and memory", f"{rate:.0%}, {size / 1e6:.2f} MB")]


PARTS: dict[str, Callable[[Setup], list[Row]]] = {
    "latency": latency,
    "throughput": throughput,
    "overload": overload,
    "hostile": hostile,
    "peer": peer,
    "cache": cache,
}


def median_ms(answers: Sequence[Answer]) -> float:
    """Median time in milliseconds of answers, which must all be rankings."""
    if wrong := [answer for answer in answers if answer.status != 200]:
        raise SystemExit(f"the server answered {wrong[0].status}: {wrong[0].content[:500]!r}")
    return 1000 * statistics.median(answer.seconds for answer in answers)


def capacity(served: Served, setup: Setup) -> tuple[float, float]:
    """Requests a second that `CLIENTS` clients get answered, and the mean tokens of a request."""
    answers, seconds = closed_loop(served.port, setup.lists, CLIENTS, setup.load_seconds)
    median_ms(answers)
    return len(answers) / seconds, statistics.mean(answer.tokens for answer in answers)


def scores(served: Served, setup: Setup) -> list[bytes]:
    """Answers to the first lists, as they are."""
    return [answer.content for answer in one_client(served.port, setup.lists[:5])]


@contextmanager
def memory_of(served: Served, every: float = 0.25) -> Iterator[list[float]]:
    """Resident memory of the server in MB, read again and again within the block."""
    process = psutil.Process(served.process.pid)

    def read() -> float:
        return float(process.memory_info().rss) / 1e6

    values, stop = [read()], threading.Event()

    def watch() -> None:
        while not stop.wait(every):
            values.append(read())

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield values
        finally:
            stop.set()
            watching.result()


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a folder that `hfcompress run` wrote")
    parser.add_argument("--data", default="api-search", help="a data set, whose test queries are asked (api-search)")
    parser.add_argument("--lists", type=int, default=200, help="queries of it (200)")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="only this part; repeatable")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds of the overload (60)")
    parser.add_argument("--load-seconds", type=float, default=10.0, help="seconds of each other load (10)")
    parser.add_argument("--hostile", type=int, default=10_000, help="hostile requests (10,000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the hostile requests (0)")
    parser.add_argument("--work", type=Path, default=CACHE, help=f"folder of environments ({CACHE})")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    silence_libraries()
    setup = Setup(
        options.folder,
        resolve_model(options.folder, options.folder),
        rank_lists(options.data, options.lists),
        options.seconds,
        options.load_seconds,
        options.hostile,
        options.seed,
        options.work,
    )
    rows = []
    for part in options.only or PARTS:
        found = PARTS[part](setup)
        for row in found:
            print(
                f"{row.part}: {row.figure}: {row.value} {f'({row.bar}) {verdict(row)}' if row.bar else ''}", flush=True
            )
        rows += found
    print(f"\n{table(rows)}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0 if all(row.reached for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
