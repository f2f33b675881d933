"""The simplest FastAPI handler in front of sentence-transformers' CrossEncoder, as a server to compare with.

It answers `POST /rerank` {query, texts}. The handler is a coroutine, so one request is computed at a time: models and
tokenizers of sentence-transformers are not made for several threads.
"""

from __future__ import annotations

import argparse
import logging
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder


class Body(BaseModel):
    """A request."""

    query: str
    texts: list[str]


def settings_of(backend: str, file: str | None) -> dict[str, Any]:
    """Settings of a CrossEncoder for a graph, with the precision that hfcompress uses for it."""
    if backend == "torch":
        return {"trust_remote_code": True}
    settings: dict[str, Any] = {"file_name": file}
    if backend == "openvino":
        settings["ov_config"] = {"INFERENCE_PRECISION_HINT": "f32"}
    return {"backend": backend, "model_kwargs": settings}


def main() -> None:
    """Load the model, listen on a free port and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--backend", choices=("torch", "onnx", "openvino"), default="torch")
    parser.add_argument("--file", help="the graph in the folder")
    options = parser.parse_args()
    model = CrossEncoder(options.folder, device="cpu", **settings_of(options.backend, options.file))
    model.predict([("a", "b")])
    app = FastAPI()

    @app.post("/rerank")
    async def rerank(body: Body) -> list[dict[str, Any]]:
        ranked = model.rank(body.query, body.texts, show_progress_bar=False)
        return [{"index": hit["corpus_id"], "score": float(hit["score"])} for hit in ranked]

    logging.basicConfig()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as where uvicorn opens the socket itself
        print(f"on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
