"""scripts/check_http_clients.py without the clients: what it counts as a fault."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(ROOT / "scripts"))  # where a script finds those that it imports
    spec = importlib.util.spec_from_file_location("check_http_clients", ROOT / "scripts" / "check_http_clients.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_client_has_its_script(script: ModuleType) -> None:
    assert {name for name, _ in script.CLIENTS.values()} == {path.name for path in script.HERE.glob("*.py")}


def test_faults_of_rankings(script: ModuleType) -> None:
    scores = np.array([0.1, 0.9, 0.5])
    assert script.fault([(1, 0.9), (2, 0.5), (0, 0.1)], scores) is None
    assert script.fault([(1, 0.9), (2, 0.5)], scores) == "2 of 3 documents, or one twice"
    assert script.fault([(1, 0.9), (1, 0.9), (0, 0.1)], scores) == "3 of 3 documents, or one twice"
    assert script.fault([(2, 0.5), (1, 0.9), (0, 0.1)], scores) == "not sorted by score"
    assert script.fault([(1, 0.9), (2, 0.4), (0, 0.1)], scores) == "a score differs by 0.1"
