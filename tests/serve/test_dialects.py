"""Each interface: its fields, its scores, its errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from hfcompress.rankers.base import BatchedRanker, RankerOptions
from hfcompress.rankers.load import load_ranker

QUERY = "ba de fi"
DOCUMENTS = ["ba", "de fi", "san sen to", "ba de fi", "ku", "ba de " * 30]
PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")


def post(client: Any, path: str, **body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_tei(client: Any, ranker: BatchedRanker) -> None:
    ranked = ranker.rank(QUERY, DOCUMENTS)
    found = post(client, "/rerank", query=QUERY, texts=DOCUMENTS)
    assert [(each["index"], each["score"]) for each in found] == ranked
    assert all(set(each) == {"index", "score"} for each in found)
    raw = ranker.score([(QUERY, document) for document in DOCUMENTS]).tolist()
    found = post(client, "/rerank", query=QUERY, texts=DOCUMENTS, raw_scores=True, return_text=True, truncate=True)
    assert {each["index"]: each["score"] for each in found} == dict(enumerate(raw))
    assert all(each["text"] == DOCUMENTS[each["index"]] for each in found)


def test_tei_truncates_from_the_side_that_is_asked_for(client: Any, run_folder: Path) -> None:
    left = load_ranker(run_folder)
    tokenizer = left.tokenizer
    tokenizer.truncation_side = "left"
    left.tokenizer = tokenizer
    texts = ["ba de " * 30 + "san", "fi"]
    found = post(client, "/rerank", query=QUERY, texts=texts, raw_scores=True, truncation_direction="Left")
    expected = left.score([(QUERY, text) for text in texts]).tolist()
    assert {each["index"]: each["score"] for each in found} == dict(enumerate(expected))


def test_tei_refuses_long_pairs_if_asked_to(client: Any) -> None:
    response = client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS, "truncate": False})
    assert response.status_code == 413 and response.json()["error_type"] == "validation"
    assert "less than 33 tokens. Given: 66" in response.json()["error"]


def test_tei_times_in_headers(client: Any) -> None:
    headers = client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS}).headers
    for name in ("total", "tokenization", "queue", "inference"):
        assert headers[f"x-{name}-time"].isdecimal()
    assert int(headers["x-compute-tokens"]) > len(DOCUMENTS)


def test_infinity(client: Any, ranker: BatchedRanker) -> None:
    found = post(client, "/rerank", query=QUERY, documents=DOCUMENTS, model="default/not-specified", top_n=3)
    expected = [tuple(each) for each in ranker.rank(QUERY, DOCUMENTS, 3)]
    assert [(each["index"], each["relevance_score"]) for each in found["results"]] == expected
    assert found["data"] == found["results"] and found["object"] == "rerank" and found["model"] == "small"
    assert found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"] > 0
    assert found["id"].startswith("infinity-") and found["created"] > 1e9
    found = post(client, "/rerank", query=QUERY, documents=DOCUMENTS, return_documents=True, raw_scores=True)
    assert all(each["document"] == DOCUMENTS[each["index"]] for each in found["results"])
    raw = ranker.score([(QUERY, document) for document in DOCUMENTS]).tolist()
    assert {each["index"]: each["relevance_score"] for each in found["results"]} == dict(enumerate(raw))


def test_cohere_v2(client: Any, ranker: BatchedRanker) -> None:
    found = post(client, "/v2/rerank", model="small", query=QUERY, documents=DOCUMENTS, top_n=2, priority=3)
    expected = [{"index": hit.position, "relevance_score": hit.score} for hit in ranker.rank(QUERY, DOCUMENTS, 2)]
    assert found["results"] == expected
    assert set(found) == {"id", "results", "meta"} and found["meta"]["api_version"] == {"version": "2"}


def test_cohere_reads_so_many_tokens_of_each_document(client: Any) -> None:
    whole = post(client, "/v2/rerank", query=QUERY, documents=["ba de", "de"], max_tokens_per_doc=1)["results"]
    short = post(client, "/v2/rerank", query=QUERY, documents=["ba", "de"])["results"]
    assert [each["relevance_score"] for each in whole] == [each["relevance_score"] for each in short]


def test_v1_for_cohere_and_jina(client: Any, ranker: BatchedRanker) -> None:
    expected = [tuple(each) for each in ranker.rank(QUERY, DOCUMENTS)]
    jina = post(client, "/v1/rerank", model="small", query=QUERY, documents=[{"text": each} for each in DOCUMENTS])
    assert all(each["document"] == {"text": DOCUMENTS[each["index"]]} for each in jina["results"])
    assert jina["model"] == "small" and jina["usage"]["total_tokens"] > 0
    cohere = post(client, "/v1/rerank", query=QUERY, documents=DOCUMENTS, max_chunks_per_doc=1)
    for found in (jina, cohere):
        assert [(each["index"], each["relevance_score"]) for each in found["results"]] == expected
        assert found["id"] and found["meta"]["api_version"] == {"version": "1"}
    assert all("document" not in each for each in cohere["results"])
    bare = post(client, "/v1/rerank", query=QUERY, documents=DOCUMENTS, return_documents=False)
    assert all("document" not in each for each in bare["results"])


def test_cohere_v1_reads_fields_of_objects(client: Any, ranker: BatchedRanker) -> None:
    documents = [{"title": "ba", "body": "de"}, {"title": "fi", "body": "san"}]
    found = post(client, "/v1/rerank", query=QUERY, documents=documents, rank_fields=["title", "body"])
    expected = ranker.rank(QUERY, ["ba\nde", "fi\nsan"])
    assert [(each["index"], each["relevance_score"]) for each in found["results"]] == expected
    documents[0]["text"] = "san"
    found = post(client, "/v1/rerank", query=QUERY, documents=[*documents, {}], max_chunks_per_doc=1)
    expected = ranker.rank(QUERY, ["san", "fi\nsan", ""])
    assert [(each["index"], each["relevance_score"]) for each in found["results"]] == expected


OPTIONAL = {
    "/rerank": [
        {"texts": DOCUMENTS, "raw_scores": None, "return_text": None, "truncate": None, "truncation_direction": None},
        {"documents": DOCUMENTS, "raw_scores": None, "return_documents": None, "top_n": None},
    ],
    "/v1/rerank": [
        {"documents": DOCUMENTS, "top_n": None, "return_documents": None, "truncation": None},
        {"documents": DOCUMENTS, "max_tokens_per_doc": None, "rank_fields": None, "return_documents": None},
    ],
    "/v2/rerank": [{"documents": DOCUMENTS, "top_n": None, "max_tokens_per_doc": None, "priority": None}],
}


@pytest.mark.parametrize(("path", "body"), [(path, body) for path, bodies in OPTIONAL.items() for body in bodies])
def test_null_stands_for_the_default(client: Any, path: str, body: dict[str, Any]) -> None:
    def content(answer: Any) -> Any:
        return answer if isinstance(answer, list) else answer["results"]

    given = {name: value for name, value in body.items() if value is not None}
    if "max_tokens_per_doc" in body:  # without it, /v1/rerank takes the body for one of Jina's
        given["max_tokens_per_doc"] = 4096
    found = post(client, path, query=QUERY, model=None, **body)
    assert content(found) == content(post(client, path, query=QUERY, **given))


def test_scores_of_a_checkpoint_without_activation_are_sigmoids(client: Any, run_folder: Path) -> None:
    teacher = load_ranker(run_folder / ".hfcompress" / "teacher")
    ranked = teacher.rank(QUERY, DOCUMENTS)
    raw = post(client, "/rerank", query=QUERY, texts=DOCUMENTS, raw_scores=True, model="teacher")
    assert [(each["index"], each["score"]) for each in raw] == ranked
    found = post(client, "/v2/rerank", query=QUERY, documents=DOCUMENTS, model="teacher")["results"]
    assert [each["index"] for each in found] == [each.position for each in ranked]
    sigmoids = 1 / (1 + np.exp(-np.array([each.score for each in ranked])))
    assert [each["relevance_score"] for each in found] == pytest.approx(sigmoids.tolist())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_graphs(serving: Callable[..., Any], repository: Path, runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    path = {"onnxruntime": "onnx/model_quantized.onnx", "openvino": "openvino/openvino_model_qint8_quantized.xml"}
    # In dynamic int8, scores depend on the company in a batch, and batches on the number of threads.
    ranker = load_ranker(repository, file=path[runtime], options=RankerOptions(threads=1))
    with serving(f"graph={repository / path[runtime]}") as client:
        found = post(client, "/rerank", query=QUERY, texts=DOCUMENTS, raw_scores=True)
        assert client.get("/info").json()["models"][0]["runtime"] == runtime
    assert [each["index"] for each in found] == [each.position for each in ranker.rank(QUERY, DOCUMENTS)]
    assert [each["score"] for each in found] == pytest.approx([each.score for each in ranker.rank(QUERY, DOCUMENTS)])


BAD: list[tuple[dict[str, Any], int]] = [
    ({"query": " ", "documents": ["a"], "texts": ["a"]}, 400),
    ({"query": "a", "documents": [], "texts": []}, 400),
    ({"documents": ["a"], "texts": ["a"]}, 422),
    ({"query": 5, "documents": ["a"], "texts": ["a"]}, 422),
    ({"query": "a", "documents": "a", "texts": "a"}, 422),
    ({"query": "a", "documents": [None], "texts": [None]}, 422),
    ({"query": "a", "documents": ["a"], "texts": ["a"], "model": "other"}, 404),
    ({"query": "a", "documents": ["a"] * 1001, "texts": ["a"] * 1001}, 413),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("body", "status"), BAD)
def test_errors_have_the_form_of_the_interface(client: Any, path: str, body: dict[str, Any], status: int) -> None:
    response = client.post(path, json=body)
    assert response.status_code == status
    form = {
        "/rerank": {"error", "error_type"},
        "/v1/rerank": {"id", "message", "detail"},
        "/v2/rerank": {"id", "message"},
    }
    assert set(response.json()) == form[path]
    assert all(isinstance(value, str) and value for value in response.json().values())


def test_errors_of_infinity(client: Any) -> None:
    for body in ({"query": "a", "documents": []}, {"query": "a", "documents": ["a"], "model": "other"}):
        response = client.post("/rerank", json=body)
        error = response.json()["error"]
        assert error["code"] == response.status_code and error["message"]


def test_other_paths_and_methods(client: Any) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/nothing").status_code == 404
    refused = client.get("/rerank")
    assert refused.status_code == 405 and refused.headers["allow"] == "POST"
    info = client.get("/info").json()
    assert [each["name"] for each in info["models"]] == ["small", "teacher"]
    assert info["model_id"] == "small" and info["max_input_length"] == 32 and info["max_client_batch_size"] == 1000
    assert client.get("/docs").status_code == 200 and "/v2/rerank" in client.get("/openapi.json").json()["paths"]


def test_the_page_loads_nothing_from_elsewhere(client: Any) -> None:
    response = client.get("/")
    assert response.status_code == 200 and "<title>hfcompress" in response.text
    assert "http://" not in response.text and "https://" not in response.text and "innerHTML" not in response.text
    assert "connect-src 'self'" in response.headers["content-security-policy"]


def test_the_description_of_the_interfaces_loads_nothing_from_elsewhere(client: Any) -> None:
    page = client.get("/docs").text
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(loaded) >= 2 and all(path.startswith("/docs-assets/") for path in loaded)
    assert all(client.get(path).status_code == 200 for path in loaded)
    assert "https://" not in page and client.get("/redoc").status_code == 404
