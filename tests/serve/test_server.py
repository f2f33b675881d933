"""The server as a process: start, stop and reload by signals, clients that go away, other projects' clients."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from conftest import SIGMOID, make_pico
from serve_process import BODY, DOCUMENTS, QUERY, Server
from transformers import BertTokenizerFast

from hfcompress.errors import AddressError, DataError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.rankers.base import BatchedRanker
from hfcompress.rankers.load import load_ranker
from hfcompress.serve.models import ModelSource, sources_of
from hfcompress.serve.server import listen


def expected(folder: Path) -> list[float]:
    return load_ranker(folder).score([(QUERY, document) for document in DOCUMENTS]).tolist()


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: BertTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("other") / "other"
    save_checkpoint(folder, make_pico(seed=5), tokenizer, SIGMOID, 32)
    return folder


@pytest.mark.slow
def test_a_process_from_start_to_stop(
    start: Callable[..., Server], run_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    """One process for all of it, since its start takes seconds."""
    link = tmp_path / "live"
    link.symlink_to(run_folder)
    server = start(str(link), "--max-wait-ms", "1")
    before, after = expected(run_folder), expected(other_folder)
    assert server.scores() == before and before != after

    # A new folder at the same link, while requests come: none is lost, and from some moment on they have new scores.
    found: list[list[float]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            found.append(server.scores())

    thread = threading.Thread(target=ask)
    thread.start()
    new = tmp_path / "new"
    new.symlink_to(other_folder)
    new.rename(link)
    server.wait_for("live was loaded again")
    time.sleep(0.2)
    stop.set()
    thread.join()
    assert server.scores() == after
    assert found[0] == before and found[-1] == after
    change = found.index(after)
    assert found == [before] * change + [after] * (len(found) - change)

    if hasattr(signal, "SIGHUP"):
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("live was loaded again")
        assert server.scores() == after

    # Half a body, a body that is announced as too large, and bad headers leave the server as it was.
    post = b"POST /rerank HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: "
    for content, status in (
        (post + b"50\r\n\r\n{", None),
        (post + b"9999999999\r\n\r\n", b"413"),
        (post + b"-5\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", None),
        (b"\x00\xff\r\n\r\n", b"400"),
    ):
        with socket.create_connection(server.address, timeout=10) as connection:
            connection.sendall(content)
            if status:
                assert connection.recv(100).split()[1] == status
    assert server.scores() == after

    server.process.send_signal(signal.SIGTERM)
    server.wait_for("stopped")
    assert server.process.wait(20) == 0


@pytest.mark.slow
def test_a_request_in_progress_is_answered_before_the_stop(start: Callable[..., Server], run_folder: Path) -> None:
    server = start(str(run_folder), "--no-teacher", "--batch-tokens", "64", "--max-texts", "5000")
    answer: list[int] = []
    request = threading.Thread(target=lambda: answer.append(len(server.rerank(texts=DOCUMENTS * 600))))
    request.start()
    while b"te_request_count" not in urllib.request.urlopen(f"{server.url}/metrics", timeout=10).read():
        time.sleep(0.01)
    server.process.send_signal(signal.SIGINT)
    request.join()
    assert answer == [3000]
    assert server.process.wait(20) == 0


def test_a_client_that_goes_away_frees_its_work(serving: Callable[..., Any], run_folder: Path) -> None:
    """With the application itself: the disconnection is what a server would report."""
    with serving(run_folder, batch_tokens=256) as client:
        app, (model, _) = client.app, client.app.state.models.all()
        going, begun = threading.Event(), threading.Event()
        score, scored = model.batcher._score, []

        def held(encoded: Any) -> Any:
            begun.set()
            going.wait(20)
            scored.append(len(encoded["input_ids"]))
            return score(encoded)

        model.batcher._score = held
        body = json.dumps({**BODY, "texts": DOCUMENTS * 190}).encode()
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        sent = client.portal.call(play, app, messages, begun)
        going.set()
        assert sent[0]["status"] == 499 and model.batcher.waiting_tokens == 0 and model.users == 0
        assert client.post("/rerank", json=BODY).status_code == 200
        assert 5 < sum(scored) < 200
        assert b'te_request_failure{err="disconnected"} 1.0' in client.get("/metrics").content


async def play(app: Any, messages: list[Any], begun: threading.Event | None = None) -> list[Any]:
    """Send messages to the application, and once it has begun that the client went away; returns its answer."""
    scope = {
        "type": "http", "method": "POST", "path": "/rerank", "raw_path": b"/rerank", "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "http_version": "1.1", "scheme": "http",
        "server": ("a", 80), "client": ("b", 1), "root_path": "",
    }  # fmt: skip
    sent: list[Any] = []
    received: asyncio.Queue[Any] = asyncio.Queue()
    for message in messages:
        received.put_nowait(message)

    async def send(message: Any) -> None:
        sent.append(message)

    task = asyncio.create_task(app(scope, received.get, send))
    if begun:
        await asyncio.to_thread(begun.wait, 20)
        received.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(task, 20)
    return sent


def test_slow_bodies_end_with_408(serving: Callable[..., Any], run_folder: Path) -> None:
    with serving(run_folder, body_seconds=0.2) as client:
        sent = client.portal.call(play, client.app, [{"type": "http.request", "body": b"{", "more_body": True}])
        assert sent[0]["status"] == 408 and client.app.state.held.total == 0


def test_a_damaged_folder_leaves_the_model_as_it_was(
    serving: Callable[..., Any], run_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(run_folder, tmp_path / "copy")
    with serving(f"copy={folder}", poll_seconds=0.05) as client:

        def reloads(result: str) -> bool:
            return f'hfcompress_reloads{{result="{result}"}}' in client.get("/metrics").text

        before = client.post("/rerank", json=BODY).json()
        (folder / "config.json").write_text("{")
        wait_until(lambda: reloads("failed"))
        assert client.post("/rerank", json=BODY).json() == before
        for name in ("config.json", "model.safetensors"):
            shutil.copy(other_folder / name, folder / name)
        wait_until(lambda: reloads("loaded"))
        found = {each["index"]: each["score"] for each in client.post("/rerank", json=BODY).json()}
        assert [found[index] for index in range(len(DOCUMENTS))] == expected(other_folder)


def wait_until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_metrics_have_the_names_of_tei(serving: Callable[..., Any], run_folder: Path) -> None:
    with serving(run_folder) as client:
        for _ in range(2):
            client.post("/rerank", json=BODY)
        client.post("/rerank", json={})
        text = client.get("/metrics").text
    for line in (
        'te_request_count{method="batch"} 2.0', 'te_request_success{method="batch"} 2.0',
        'te_request_failure{err="invalid"} 1.0', 'te_request_duration_count{model="small"} 2.0',
        'te_request_tokenization_duration_count{model="small"} 2.0',
        'te_request_queue_duration_count{model="small"} 2.0',
        'te_request_inference_duration_count{model="small"} 2.0', 'te_request_input_length_count{model="small"} 10.0',
        'te_batch_next_size_sum{model="small"} 10.0', 'te_queue_size{model="small"} 0.0',
        'hfcompress_cache_hits{model="small"} 5.0', 'hfcompress_cache_misses{model="small"} 5.0',
        'hfcompress_cache_hit_rate{model="small"} 0.5',
    ):  # fmt: skip
        assert f"\n{line}\n" in f"\n{text}"


@pytest.mark.slow
def test_the_client_of_cohere(start: Callable[..., Server], run_folder: Path, ranker: BatchedRanker) -> None:
    cohere = pytest.importorskip("cohere", reason="the package `cohere` is not installed")
    server = start(f"small={run_folder}", "--no-teacher", "--api-key-env", "TEST_KEY", TEST_KEY="secret")
    expected = [tuple(each) for each in ranker.rank(QUERY, DOCUMENTS, 3)]
    for kind in (cohere.ClientV2, cohere.Client):
        client = kind(api_key="secret", base_url=server.url)
        found = client.rerank(model="small", query=QUERY, documents=DOCUMENTS, top_n=3)
        assert [(each.index, each.relevance_score) for each in found.results] == expected
        with pytest.raises(cohere.NotFoundError, match="there are 'small'"):
            client.rerank(model="other", query=QUERY, documents=DOCUMENTS)
    with pytest.raises(cohere.UnauthorizedError):
        cohere.ClientV2(api_key="wrong", base_url=server.url).rerank(model="small", query=QUERY, documents=DOCUMENTS)


def test_names_of_models(run_folder: Path) -> None:
    common = ModelSource("", "", cache_bytes=5)
    found = sources_of([str(run_folder), f"b={run_folder}", "my-org/model"], common)
    assert [(each.name, each.location) for each in found] == [
        ("small", str(run_folder)),
        ("b", str(run_folder)),
        ("model", "my-org/model"),
        ("teacher", str(run_folder / ".hfcompress" / "teacher")),
    ]
    assert all(each.cache_bytes == 5 for each in found)
    assert len(sources_of([str(run_folder)], common, teacher=False)) == 1
    with pytest.raises(DataError, match="name of its own"):
        sources_of([str(run_folder), str(run_folder)], common)


def test_an_address_in_use() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(AddressError, match="choose another --port"):
        listen("127.0.0.1", first.getsockname()[1])
