"""A finished run with a pico model, and the real client of the Hub with a server on the loopback interface."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from conftest import IDENTITY, make_pico, uneven_plan
from hub_server import TOKEN, HubServer
from huggingface_hub.utils import _http as client_http
from huggingface_hub.utils import close_session, disable_progress_bars
from run_reports import run_report
from stub_graphs import stub_graph
from transformers import BertTokenizerFast

from hfcompress.card import write_card
from hfcompress.hub import client
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.layout import ALTERNATIVE_FOLDER, WORK_FOLDER
from hfcompress.models.surgery import apply_plan
from hfcompress.optimum_config import RankerCompressionConfig


@pytest.fixture(scope="session")
def stub_run(tmp_path_factory: pytest.TempPathFactory, tokenizer: BertTokenizerFast) -> Path:
    """A finished run whose graph is a stand-in; copy it before a change."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    save_checkpoint(folder, apply_plan(make_pico(), uneven_plan()), tokenizer, IDENTITY, 32)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model_quantized.onnx").write_bytes(stub_graph("graph"))
    (folder / WORK_FOLDER / "teacher").mkdir(parents=True)
    (folder / ALTERNATIVE_FOLDER).mkdir()  # of `compress`: without a verdict, so it is not published
    (folder / ALTERNATIVE_FOLDER / "README.md").write_text("# another model", encoding="utf-8")
    (folder / WORK_FOLDER / "state.json").write_text(f'"{folder} {TOKEN}"', encoding="utf-8")
    RankerCompressionConfig(recipe={"name": "quickstart"}, versions={"hfcompress": "0"}).save_pretrained(folder)
    report = run_report()
    report.save(folder)
    write_card(folder, report)
    return folder


@pytest.fixture
def run_folder(stub_run: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(stub_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def _server() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def server(_server: HubServer, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty Hub that the client talks to, over plain LFS: the server has no Xet store."""
    _server.reset()
    close_session()
    disable_progress_bars()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", _server.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    yield _server
    close_session()


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been waited, in seconds; nothing waits."""
    waits: list[float] = []

    class Clock:
        sleep = staticmethod(waits.append)

    monkeypatch.setattr(client, "sleep", waits.append)
    monkeypatch.setattr(client_http, "time", Clock)
    return waits


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs `hfcompress publish`; returns its exit code and all that it printed."""
    from hfcompress.cli import main

    def run(*arguments: object) -> tuple[int, str]:
        code = 0
        try:
            main(["publish", *map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run
