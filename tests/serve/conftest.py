"""Servers of pico models, in this process. Imports of the extra `serve` stand in fixtures, since it may be missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import IDENTITY, SIGMOID, make_pico
from serve_process import Server
from transformers import BertTokenizerFast

from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.rankers.base import BatchedRanker
from hfcompress.rankers.load import load_ranker
from hfcompress.recipe import TRUNCATED, LongDocuments


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: BertTokenizerFast) -> Path:
    """A folder as a run leaves it: a model, and its teacher in `.hfcompress`."""
    folder = tmp_path_factory.mktemp("served") / "small"
    save_checkpoint(folder, make_pico(), tokenizer, SIGMOID, 32)
    save_checkpoint(folder / ".hfcompress" / "teacher", make_pico(seed=1), tokenizer, IDENTITY, 32)
    return folder


@pytest.fixture(scope="session")
def ranker(run_folder: Path) -> BatchedRanker:
    """The model of `run_folder`."""
    return load_ranker(run_folder)


@pytest.fixture(scope="session")
def serving() -> Callable[..., Any]:
    """Function that returns a context with a client of a server of these models, and of these settings."""

    @contextmanager
    def context(
        *names: str | Path, cache_bytes: int = 1 << 20, long_documents: LongDocuments = TRUNCATED, **settings: Any
    ) -> Iterator[Any]:
        from fastapi.testclient import TestClient

        from hfcompress.serve.app import create_app
        from hfcompress.serve.models import Models, ModelSource, sources_of
        from hfcompress.serve.settings import ServeSettings

        common = ModelSource("", "", threads=1, cache_bytes=cache_bytes, long_documents=long_documents)
        sources = sources_of([str(name) for name in names], common)
        models = Models(sources, ServeSettings(**settings))
        with TestClient(create_app(models), raise_server_exceptions=False) as client:
            yield client

    return context


@pytest.fixture(scope="session")
def client(serving: Callable[..., Any], run_folder: Path) -> Iterator[Any]:
    """A client of a server of `small` and its teacher."""
    with serving(run_folder) as client:
        yield client


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def starting(*arguments: str, **environment: str) -> Server:
        servers.append(Server(*arguments, **environment))
        return servers[-1]

    yield starting
    for server in servers:
        server.process.kill()
        server.process.wait()
        server.process.stdout.close()  # type: ignore[union-attr]
