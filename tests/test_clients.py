"""scripts/check_clients.py without the clients: what it counts as a wrong order, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import WORDS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(ROOT / "scripts"))  # where a script finds those that it imports
    spec = importlib.util.spec_from_file_location("check_clients", ROOT / "scripts" / "check_clients.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_clients"] = module  # where its dataclass looks for annotations
    spec.loader.exec_module(module)
    return module


def test_documents_closer_than_the_tolerance_may_be_swapped(script: ModuleType) -> None:
    reference = np.array([0.0, 1.0, 1.1, 3.0])
    assert script.disorder(reference, 1 / (1 + np.exp(-reference)), 0.1) == (0, 5 / 6)
    assert script.disorder(reference, np.array([0.0, 1.1, 1.0, 3.0]), 0.1) == (0, 5 / 6)
    assert script.disorder(reference, np.array([0.0, 1.1, 1.0, 3.0]), 0.01) == (1, 1.0)
    assert script.disorder(reference, -reference, 0.1) == (5, 5 / 6)
    assert script.disorder(reference, -reference, 2.0) == (0, 0.0)  # nothing is decided, which fails too


def test_every_client_has_its_script(script: ModuleType) -> None:
    assert {client.script for client in script.CLIENTS.values()} == {path.name for path in script.HERE.iterdir()}
    for client in script.CLIENTS.values():  # torch first and alone, so that no other build of it comes in
        assert client.environment != "transformers-4" or client.install[0] == ["torch==2.13.0"]
    assert len(set(script.DOCUMENTS)) == 20


def test_right_wrong_and_broken_clients_are_told_apart(
    script: ModuleType,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(script, "DOCUMENTS", [" ".join(WORDS[: 1 + index]) for index in range(20)])
    monkeypatch.setattr(script, "QUERY", "ba de")
    monkeypatch.setattr(script, "prepare", lambda client, work: [sys.executable, str(tmp_path / "client.py")])
    reference = script.load_ranker(repository, "torch").score([("ba de", text) for text in script.DOCUMENTS])
    for scores, right in ((reference, True), (-reference, False), (reference[:-1], False)):
        (tmp_path / "client.py").write_text(
            f"import sys; sys.stdin.read(); print('noise'); print({json.dumps(scores.tolist())})"
        )
        assert script.check("optimum-onnx", repository, tmp_path, reference) is right
    (tmp_path / "client.py").write_text("raise SystemExit('no such model')")
    assert not script.check("optimum-onnx", repository, tmp_path, reference)
    assert "no such model" in capsys.readouterr().out


def test_a_folder_without_graphs(cross_encoder: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "check_clients.py", cross_encoder], capture_output=True, text=True
    )
    assert done.returncode == 2 and "onnx/model.onnx" in done.stderr
