"""`hfcompress serve` ends with an error that says what to do, before it loads a model."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from command_line import Command

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")


def test_errors(models: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = models / "encoder"
    for arguments, remedy in (
        (("--runtime", "jax"), "torch, onnxruntime or openvino"),
        (("--api-key-env", "NOT_SET_HERE"), "leave out --api-key-env"),
        ((folder,), "NAME=DIR"),
    ):
        code, text = command("serve", folder, *arguments)
        assert code == 2 and remedy in text
    code, text = command("serve", "no/such/folder", "--port", 0)
    assert code == 2 and "Remedy" in text
    with socket.create_server(("127.0.0.1", 0)) as used:
        code, text = command("serve", folder, "--port", used.getsockname()[1])
    assert code == 2 and "another --port" in text
    monkeypatch.setattr("hfcompress.cli.serve.find_spec", lambda name: None)
    code, text = command("serve", folder)
    assert code == 2 and "pip install 'hfcompress[serve]'" in text
