"""What the server refuses: keys, sizes, JSON of all kinds, and requests beyond its queue."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")
GOOD = {"query": "ba", "texts": ["ba de", "fi"], "documents": ["ba de", "fi"]}
JSON = {"Content-Type": "application/json"}

MALFORMED = {
    "nothing": b"",
    "no JSON": b"{",
    "NaN": b'{"query": "a", "documents": ["a"], "texts": ["a"], "top_n": NaN}',
    "Infinity": b'{"query": "a", "documents": ["a"], "texts": ["a"], "x": -Infinity}',
    "invalid UTF-8": b'{"query": "\xff", "documents": ["a"], "texts": ["a"]}',
    "lone surrogate": b'{"query": "\\ud800", "documents": ["a"], "texts": ["a"]}',
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "deep": b'{"query": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep and ignored": b'{"query": "a", "texts": ["a"], "documents": ["a"], "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_json(client: Any, path: str, body: bytes) -> None:
    assert client.post(path, content=body, headers=JSON).status_code == 400


@pytest.mark.parametrize("path", PATHS)
def test_other_content(client: Any, path: str) -> None:
    response = client.post(path, content=b"query=a", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert response.status_code == 415


def test_a_key_is_asked_for(serving: Callable[..., Any], run_folder: Path) -> None:
    with serving(run_folder, api_key="secret") as client:
        for path in ("/", "/health", "/docs", "/docs-assets/swagger-ui.css", "/openapi.json"):
            assert client.get(path).status_code == 200
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic secret"},
            {"Authorization": "é"},
        ):
            headers = {name: value.encode("latin-1") for name, value in headers.items()}
            response = client.post("/v2/rerank", json=GOOD, headers=headers)
            assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
            assert client.get("/metrics", headers=headers).status_code == 401
        assert client.post("/rerank", content=b"x" * 100).status_code == 401
        assert client.post("/rerank", json=GOOD, headers={"Authorization": "bearer secret"}).status_code == 200


def test_sizes(serving: Callable[..., Any], run_folder: Path) -> None:
    with serving(run_folder, max_bytes=1000, max_texts=5, max_tokens=40, max_body_bytes=1500) as client:
        assert client.post("/rerank", json=GOOD).status_code == 200
        assert client.post("/rerank", json={"query": "ba", "texts": ["a"] * 6}).status_code == 413
        long = {"query": "ba", "texts": ["ba de " * 8] * 5}
        assert "tokens" in client.post("/rerank", json=long).json()["error"]
        assert client.post("/rerank", json={**GOOD, "x": "y" * 1000}).status_code == 413
        # Without a length: chunks are counted as they come.
        chunks = (b" " * 100 for _ in range(11))
        assert client.post("/rerank", content=chunks, headers=JSON).status_code == 413
        assert client.app.state.held.total == 0


def test_bodies_of_all_requests_are_bounded(serving: Callable[..., Any], run_folder: Path) -> None:
    with serving(run_folder, max_body_bytes=100) as client:
        response = client.post("/rerank", json={**GOOD, "x": "y" * 100})
        assert response.status_code == 429 and response.headers["retry-after"] == "1"


def test_a_full_queue_refuses_with_429_and_recovers(serving: Callable[..., Any], run_folder: Path) -> None:
    with serving(run_folder, queue_tokens=30, batch_tokens=16) as client:
        (model, _) = client.app.state.models.all()
        going, begun = threading.Event(), threading.Event()
        score = model.batcher._score

        def held(encoded: Any) -> Any:
            begun.set()
            going.wait(20)
            return score(encoded)

        model.batcher._score = held
        with ThreadPoolExecutor(4) as pool:
            long = {"query": "ba", "texts": ["ba de fi"] * 20}
            first = pool.submit(client.post, "/rerank", json=long)
            assert begun.wait(20)
            refused = client.post("/rerank", json=GOOD)
            going.set()
            assert first.result().status_code == 200
        assert refused.status_code == 429 and refused.json()["error_type"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        assert client.post("/rerank", json=GOOD).status_code == 200


def test_failures_of_the_runtime_are_424(serving: Callable[..., Any], run_folder: Path) -> None:
    with serving(run_folder) as client:
        (model, _) = client.app.state.models.all()
        score = model.batcher._score

        def fails(encoded: Any) -> Any:
            raise RuntimeError("/secret/path")

        model.batcher._score = fails
        response = client.post("/rerank", json=GOOD)
        assert response.status_code == 424 and response.json()["error_type"] == "backend"
        assert "secret" not in response.text
        model.batcher._score = lambda encoded: score(encoded) * float("nan")
        assert client.post("/rerank", json=GOOD).json()["error"] == "score is NaN"
        model.batcher._score = score
        assert client.post("/rerank", json=GOOD).status_code == 200


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
texts = st.lists(st.text(max_size=30), max_size=5)
FIELDS = {
    "query": st.text(max_size=30), "texts": texts,
    "documents": texts | st.lists(st.dictionaries(st.just("text"), st.text())),
    "top_n": st.integers(-2, 10), "raw_scores": st.booleans(), "return_text": st.booleans(), "truncate": st.booleans(),
    "return_documents": st.booleans(), "max_tokens_per_doc": st.integers(-1, 10), "priority": st.integers(-1, 1001),
    "truncation_direction": st.sampled_from(["left", "Right", "up"]),
    "model": st.sampled_from(["small", "teacher", "x"]),
    "rank_fields": st.lists(st.text(max_size=4), max_size=2), "truncation": st.booleans(),
}  # fmt: skip
almost_right = st.fixed_dictionaries({}, optional={name: usual | values for name, usual in FIELDS.items()})
needed = {name: FIELDS[name] for name in ("query", "texts", "documents")}
right = st.fixed_dictionaries(needed, optional={name: FIELDS[name] for name in FIELDS.keys() - needed})


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(PATHS), body=almost_right | right | values)
def test_bodies_of_any_kind(client: Any, path: str, body: Any) -> None:
    response = client.post(path, content=json.dumps(body), headers=JSON)
    assert response.status_code in (200, 400, 404, 413, 422), response.text
    assert response.json()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(PATHS), body=st.binary(max_size=60), data=st.data())
def test_damaged_bodies(client: Any, path: str, body: bytes, data: st.DataObject) -> None:
    whole = json.dumps(GOOD).encode()
    place = data.draw(st.integers(0, len(whole)))
    response = client.post(path, content=whole[:place] + body + whole[place:], headers=JSON)
    assert response.status_code in (200, 400, 413, 422), response.text
