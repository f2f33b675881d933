"""scripts/hostile_requests.py: a seed gives the same requests, and the server refuses all kinds of them correctly."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from serve_process import Server

COUNT = 450  # with those of clients that go away, without slow ones


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "hostile_requests.py"
    spec = importlib.util.spec_from_file_location("hostile_requests", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hostile_requests"] = module  # where its dataclass looks for annotations
    spec.loader.exec_module(module)
    return module


def test_a_seed_gives_the_same_requests_of_all_kinds(script: ModuleType) -> None:
    def drawn(seed: int) -> list[tuple[str, int]]:
        return [(each.kind, hash(each.content)) for each in script.hostile_requests(COUNT, seed)]

    found = drawn(0)
    assert found == drawn(0) != drawn(1)
    assert {kind for kind, _ in found} == {*script.BODIES, *script.HTTP, "client goes away"}
    assert {each.kind for each in script.hostile_requests(1000, 0)} > {"slow headers", "slow body"}


@pytest.mark.slow
def test_the_server_refuses_them(script: ModuleType, start: Callable[..., Server], run_folder: Path) -> None:
    server = start(str(run_folder))
    before = server.scores()
    found, wrong = script.attack(server.address[1], COUNT, 0)
    assert not wrong
    assert sum(sum(statuses.values()) for statuses in found.values()) == COUNT
    assert server.process.poll() is None and server.scores() == before
