"""The queue: rounds of several requests, fair to short ones, bounded, and free of what nobody waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from conftest import WORDS

from hfcompress.rankers.base import BatchedRanker
from hfcompress.serve.batching import Batcher
from hfcompress.serve.errors import RequestError


class Runtime:
    """Scores a pair by its first token, when it is allowed to."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.going = threading.Event()
        self.going.set()

    def __call__(self, encoded: Any) -> np.ndarray:
        self.rounds.append([int(ids[0]) for ids in encoded["input_ids"]])
        self.going.wait(20)
        return np.array([ids[0] for ids in encoded["input_ids"]], dtype=np.float32)


def rows(first: int, count: int, length: int = 10) -> dict[str, list[np.ndarray]]:
    return {"input_ids": [np.full(length, first + number) for number in range(count)]}


def run(runtime: Runtime, play: Callable[[Batcher], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def main() -> None:
        batcher = Batcher(runtime, **{"batch_tokens": 100, "max_wait": 0.0, "queue_tokens": 10_000, **settings})
        batcher.start()
        await play(batcher)
        await batcher.close()
        assert batcher.waiting == 0 and batcher.waiting_tokens == 0

    asyncio.run(asyncio.wait_for(main(), 30))


async def hold(runtime: Runtime, batcher: Batcher) -> list[asyncio.Task[Any]]:
    """Fill all places of the runtime, so that what comes next waits."""
    runtime.going.clear()
    tasks = []
    for number in range(2):
        tasks.append(asyncio.create_task(batcher.score(rows(number, 1))))
        while len(runtime.rounds) <= number:
            await asyncio.sleep(0.001)
    return tasks


async def let_go(runtime: Runtime, *waiting: asyncio.Task[Any]) -> None:
    """Free the runtime once all requests wait, and wait for these."""
    await asyncio.sleep(0.01)
    runtime.going.set()
    await asyncio.gather(*waiting)


def test_waiting_requests_share_rounds_within_the_budget() -> None:
    runtime = Runtime()

    async def play(batcher: Batcher) -> None:
        held = await hold(runtime, batcher)
        tasks = [asyncio.create_task(batcher.score(rows(100 * number, 4))) for number in range(1, 6)]
        await asyncio.sleep(0.01)
        runtime.going.set()
        for number, task in enumerate(tasks, 1):
            assert (await task).logits.tolist() == [100 * number + place for place in range(4)]
        await asyncio.gather(*held)

    run(runtime, play)
    assert [len(each) for each in runtime.rounds] == [1, 1, 10, 10]


def test_short_requests_pass_long_ones() -> None:
    runtime = Runtime()
    finished: list[str] = []

    async def play(batcher: Batcher) -> None:
        async def request(name: str, encoded: Any) -> None:
            await batcher.score(encoded)
            finished.append(name)

        held = await hold(runtime, batcher)
        tasks = [asyncio.create_task(request("long", rows(1000, 60)))]
        await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(request("short", rows(100 * number, 3))) for number in range(1, 4)]
        await let_go(runtime, *tasks, *held)

    run(runtime, play)
    assert finished == ["short", "short", "short", "long"]


def test_requests_of_one_length_are_served_in_turn() -> None:
    """Also where a round has no room for whole requests: what remains of one is not put behind the others."""
    runtime = Runtime()

    async def play(batcher: Batcher) -> None:
        held = await hold(runtime, batcher)
        tasks = [asyncio.create_task(batcher.score(rows(100 * number, 7))) for number in range(1, 6)]
        await let_go(runtime, *tasks, *held)

    run(runtime, play)
    served = [first // 100 for each in runtime.rounds[2:] for first in each]
    assert served == sorted(served) and [len(each) for each in runtime.rounds[2:]] == [10, 10, 10, 5]


def test_a_long_request_is_passed_only_by_those_that_come_within_its_own_time() -> None:
    runtime = Runtime()
    finished: list[str] = []

    async def play(batcher: Batcher) -> None:
        async def request(name: str, encoded: Any) -> None:
            await batcher.score(encoded)
            finished.append(name)

        held = await hold(runtime, batcher)
        long = asyncio.create_task(request("long", rows(1000, 60)))  # 600 tokens: 30 ms at the first rate
        await asyncio.sleep(0.2)
        late = asyncio.create_task(request("late", rows(100, 3)))
        await let_go(runtime, long, late, *held)

    run(runtime, play)
    assert finished == ["long", "late"]


def test_requests_that_are_being_tokenized_count_as_waiting() -> None:
    async def main() -> None:
        batcher = Batcher(Runtime(), 100, 0.0, 1000)
        batcher.submit(rows(1, 30))
        batcher.check_room()
        with batcher.arriving(), batcher.arriving():
            batcher.check_room()
            with batcher.arriving(), pytest.raises(RequestError, match="1200 tokens wait, and 1000 may"):
                batcher.check_room()

    asyncio.run(main())


def test_lower_numbers_of_priority_come_first() -> None:
    runtime = Runtime()

    async def play(batcher: Batcher) -> None:
        held = await hold(runtime, batcher)
        tasks = [asyncio.create_task(batcher.score(rows(100 * (3 - each), 10), each)) for each in (2, 0, 1)]
        await let_go(runtime, *tasks, *held)

    run(runtime, play)
    firsts = [each[0] // 100 for each in runtime.rounds[2:]]
    assert firsts == sorted(firsts, reverse=True)


def test_a_round_waits_for_requests_that_arrive() -> None:
    runtime = Runtime()

    async def play(batcher: Batcher) -> None:
        with batcher.arriving():
            first = asyncio.create_task(batcher.score(rows(1, 2)))
            await asyncio.sleep(0.05)
            assert not runtime.rounds
            second = asyncio.create_task(batcher.score(rows(5, 2)))
            await asyncio.sleep(0)
        await asyncio.gather(first, second)

    run(runtime, play, max_wait=10.0)
    assert [sorted(each) for each in runtime.rounds] == [[1, 2, 5, 6]]


def test_rounds_of_one_pair() -> None:
    runtime = Runtime()

    async def play(batcher: Batcher) -> None:
        held = await hold(runtime, batcher)
        tasks = [asyncio.create_task(batcher.score(rows(100 * number, 3))) for number in range(1, 4)]
        await let_go(runtime, *tasks, *held)

    run(runtime, play, batch_tokens=1)
    assert [len(each) for each in runtime.rounds] == [1] * 11


def test_the_wait_is_bounded() -> None:
    runtime = Runtime()

    async def play(batcher: Batcher) -> None:
        with batcher.arriving():
            await batcher.score(rows(1, 2))

    run(runtime, play, max_wait=0.01)
    assert len(runtime.rounds) == 1


def test_what_nobody_waits_for_is_not_scored() -> None:
    runtime = Runtime()

    async def play(batcher: Batcher) -> None:
        held = await hold(runtime, batcher)
        gone = asyncio.create_task(batcher.score(rows(1000, 50)))
        stays = asyncio.create_task(batcher.score(rows(100, 2)))
        await asyncio.sleep(0.01)
        assert batcher.waiting_tokens == 520
        gone.cancel()
        await asyncio.sleep(0.01)
        assert batcher.waiting_tokens == 20
        runtime.going.set()
        assert (await stays).logits.tolist() == [100, 101]
        await asyncio.gather(*held)

    run(runtime, play)
    assert not any(number >= 1000 for each in runtime.rounds for number in each)


def test_the_queue_is_bounded_in_tokens() -> None:
    runtime = Runtime()

    async def play(batcher: Batcher) -> None:
        held = await hold(runtime, batcher)
        waits = asyncio.create_task(batcher.score(rows(100, 9)))  # alone, so it may be longer than the bound
        await asyncio.sleep(0.01)
        with pytest.raises(RequestError) as refused:
            await batcher.score(rows(200, 1))
        assert refused.value.kind == "overloaded" and refused.value.retry_after >= 1
        runtime.going.set()
        await asyncio.gather(waits, *held)
        await batcher.score(rows(200, 1))

    run(runtime, play, queue_tokens=50)


def test_an_error_of_the_runtime_ends_its_requests_only() -> None:
    runtime = Runtime()

    def score(encoded: Any) -> np.ndarray:
        if any(ids[0] == 13 for ids in encoded["input_ids"]):
            raise RuntimeError("broken")
        return runtime(encoded)

    async def play(batcher: Batcher) -> None:
        with pytest.raises(RequestError, match="RuntimeError"):
            await batcher.score(rows(13, 30))
        assert (await batcher.score(rows(1, 1))).logits.tolist() == [1]

    run(score, play)  # type: ignore[arg-type]


def test_requests_at_the_same_time_have_the_scores_of_the_ranker(
    serving: Callable[..., Any], run_folder: Path, ranker: BatchedRanker
) -> None:
    requests = [
        (" ".join(WORDS[number : number + 3]), [" ".join(WORDS[each : each + 1 + each % 7]) for each in range(number)])
        for number in range(1, 25)
    ]
    with serving(run_folder, batch_tokens=128) as client, ThreadPoolExecutor(8) as pool:

        def ask(request: tuple[str, list[str]]) -> Any:
            return client.post("/rerank", json={"query": request[0], "texts": request[1], "raw_scores": True}).json()

        for (query, documents), found in zip(requests, pool.map(ask, requests), strict=True):
            expected = ranker.score([(query, document) for document in documents])
            scores = {each["index"]: each["score"] for each in found}
            np.testing.assert_allclose([scores[index] for index in range(len(documents))], expected, atol=1e-5)
