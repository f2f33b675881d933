"""A server that reads documents in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from hfcompress.rankers.load import load_ranker
from hfcompress.recipe import LongDocuments

QUERY = "ba de fi"
DOCUMENTS = ["ba", " ".join(["go lu ka"] * 30), "de fi", " ".join(["san sen to"] * 12)]
CHUNK = LongDocuments(mode="chunk", max_chunks=20, overlap=4)


@pytest.fixture(scope="module")
def chunking(serving: Callable[..., Any], run_folder: Path) -> Iterator[Any]:
    with serving(run_folder, long_documents=CHUNK) as client:
        yield client


def scores(client: Any, path: str = "/v2/rerank", **body: Any) -> dict[int, float]:
    response = client.post(path, json={"query": QUERY, "documents": DOCUMENTS, **body})
    assert response.status_code == 200, response.text
    return {each["index"]: each["relevance_score"] for each in response.json()["results"]}


def test_scores_are_those_of_the_ranker(chunking: Any, client: Any, run_folder: Path) -> None:
    expected = {hit.position: hit.score for hit in load_ranker(run_folder, long_documents=CHUNK).rank(QUERY, DOCUMENTS)}
    assert scores(chunking) == pytest.approx(expected, abs=2e-2)  # int8 depends a little on the batch
    assert scores(chunking)[1] != scores(client)[1] and scores(chunking)[0] == pytest.approx(scores(client)[0])


def test_limits_of_a_request(chunking: Any, client: Any) -> None:
    """Cohere's fields bound the tokens and the chunks of each document; another server ignores its chunks."""
    usage = {
        chunks: chunking.post(
            "/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS, "max_chunks_per_doc": chunks}
        ).json()["meta"]["tokens"]["input_tokens"]
        for chunks in (1, 2, 20)
    }
    assert usage[1] < usage[2] < usage[20]
    assert scores(client, "/v1/rerank", max_chunks_per_doc=2) == scores(client, "/v1/rerank", max_chunks_per_doc=1)
    short = scores(chunking, max_tokens_per_doc=5)
    assert short == scores(chunking, documents=[" ".join(text.split()[:5]) for text in DOCUMENTS])


def test_documents_that_are_read_whole_are_not_too_long(chunking: Any, serving: Any, run_folder: Path) -> None:
    body = {"query": QUERY, "texts": DOCUMENTS, "truncate": False}
    assert chunking.post("/rerank", json=body).status_code == 200
    assert chunking.get("/info").json()["models"][0]["long_documents"] == "chunk"
    with serving(run_folder, long_documents=CHUNK.model_copy(update={"max_chunks": 2})) as client:
        response = client.post("/rerank", json=body)
    assert response.status_code == 413 and "chunks" in response.json()["error"]
