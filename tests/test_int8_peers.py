"""scripts/int8_peers.py without the peers: pairs cross once, scores come back, and a peer that ends is told."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
REQUEST = {"pairs": [("a", "bcd"), ("e", "f"), ("g", "")], "threads": 1, "max_length": 32}
PEER = """
import sys; sys.path.insert(0, {peers!r})
from serve import serve

def make(request):
    print("noise of a library")
    def score(pairs):
        assert len(pairs) < 4, "too many"
        print("more of it")
        return [len(document) for _, document in pairs]
    return score, [request["pairs"][0][0] + ".onnx"]

serve(make)
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(ROOT / "scripts"))  # where a script finds those that it imports
    spec = importlib.util.spec_from_file_location("int8_peers", ROOT / "scripts" / "int8_peers.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["int8_peers"] = module  # where its dataclass looks for annotations
    spec.loader.exec_module(module)
    return module


def test_scores_cross_over(script: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "peer.py"
    path.write_text(PEER.format(peers=str(script.HERE)))
    peer = script.PeerRanker([sys.executable, str(path)], REQUEST)
    try:
        assert peer.files == [Path("a.onnx")]
        np.testing.assert_array_equal(peer.score([("g", ""), ("a", "bcd"), ("e", "f")]), [0, 3, 1])
        np.testing.assert_array_equal(peer.score([("e", "f")]), [1])
        with pytest.raises(RuntimeError, match="too many"):
            peer.score([("e", "f")] * 4)
    finally:
        peer.close()


def test_every_peer_has_its_script_and_an_artifact_of_ours(script: ModuleType) -> None:
    assert {peer.script for peer in script.PEERS.values()} | {"serve.py"} == {
        path.name for path in script.HERE.glob("*.py")
    }
    for peer in script.PEERS.values():
        assert peer.install[0] == ["torch==2.13.0"] and peer.ours in (script.OPENVINO_INT8, script.ONNX_INT8)
