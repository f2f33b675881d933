"""scripts/serve_load.py without a real server: what its clients count, and what a bar says."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def load(name: str) -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))  # where a script finds those that it imports
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look for annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def clients() -> ModuleType:
    return load("load_clients")


class Handler(BaseHTTPRequestHandler):
    """Answers 200 with tokens, or 429 to every third request."""

    protocol_version = "HTTP/1.1"
    count = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Handler.count += 1
        refused = Handler.count % 3 == 0
        time.sleep(0.01)
        self.send_response(429 if refused else 200)
        self.send_header(*(("Retry-After", "2") if refused else ("x-compute-tokens", "7")))
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever).start()
        yield server.server_port
        server.shutdown()


def test_one_client(clients: ModuleType, port: int) -> None:
    Handler.count = 0
    answers = clients.one_client(port, [clients.RankList("a", ["b"], b"{}")] * 3)
    assert [(each.status, each.tokens, each.retry_after) for each in answers] == [(200, 7, 0)] * 2 + [(429, 0, 2)]
    assert all(each.seconds >= 0.01 and each.content == b"[]" for each in answers)


def test_loops(clients: ModuleType, port: int) -> None:
    lists = [clients.RankList("a", ["b"], b"{}")]
    answers, seconds = clients.closed_loop(port, lists, 4, 0.5)
    assert seconds >= 0.5 and answers
    answers, late = clients.open_loop(port, lists, 100.0, 0.5)
    assert len(answers) == 50 and set(Counter(each.status for each in answers)) == {200, 429} and late >= 0


def test_a_client_that_fails_is_not_silent(clients: ModuleType) -> None:
    with pytest.raises(OSError):
        clients.open_loop(1, [clients.RankList("a", ["b"], b"{}")], 100.0, 0.1)


def test_rank_lists(clients: ModuleType, tmp_path: Path) -> None:
    texts = {f"d{number}": f"word{number} common" for number in range(25)}
    lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    queries = [json.dumps({"_id": f"q{number}", "text": f"word{number} common"}) for number in range(3)]
    (tmp_path / "queries.jsonl").write_text("\n".join(queries))
    (tmp_path / "qrels").mkdir()
    rows = "\n".join(f"q{number}\td{number}\t1" for number in range(3))
    for split in ("train", "dev", "test"):
        (tmp_path / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}\n")
    found = clients.rank_lists(str(tmp_path), 2)
    assert len(found) == 2 and all(len(each.texts) == clients.DOCUMENTS for each in found)
    assert all(json.loads(each.body) == {"query": each.query, "texts": each.texts} for each in found)


def test_bars() -> None:
    bars = load("bars")
    rows = [
        bars.judged("a", "ratio", 0.9, "{:.2f}", 0.9),
        bars.judged("a", "time", 3.5, "{:.1f} ms", 3, at_most=True),
        bars.Row("b", "memory", "5 MB"),
    ]
    assert [row.reached for row in rows] == [True, False, True]
    assert bars.table(rows).splitlines()[2:] == [
        "| a | ratio | 0.90 | at least 0.90 | reached |",
        "| a | time | 3.5 ms | at most 3.0 ms | **missed** |",
        "| b | memory | 5 MB |  |  |",
    ]
