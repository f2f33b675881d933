"""The server that `hfcompress serve` is compared with: sentence-transformers behind the simplest FastAPI handler."""

from __future__ import annotations

import sys
from pathlib import Path

from check_clients import TRANSFORMERS_4
from environments import APART, TORCH, python_environment
from served import running

SCRIPT = Path(__file__).parent / "http_servers" / "sentence_transformers_fastapi.py"
HTTP = ["fastapi", "uvicorn"]
# By runtime of the graph: sentence-transformers' backend, and the newest packages that it works with.
BACKENDS = {
    "openvino": ("openvino", ["sentence-transformers==6.*", "optimum-intel[openvino]==2.2.*", *HTTP]),
    "onnxruntime": ("onnx", [*TRANSFORMERS_4, *HTTP]),
}


def peer_command(folder: str, runtime: str, file: str, work: Path) -> tuple[list[str], str]:
    """Command of the peer's server for a graph, or for the checkpoint in PyTorch if it cannot open that graph.

    Args:
        folder: The folder.
        runtime: The runtime of the graph.
        file: The graph in the folder.
        work: Folder of environments, where that of the peer is created if it is not there.

    Returns:
        The command, and a note on what it runs.
    """
    in_torch = [sys.executable, str(SCRIPT), folder]
    if runtime not in BACKENDS:
        return in_torch, "PyTorch"
    backend, packages = BACKENDS[runtime]
    try:
        python = python_environment(work / f"sentence-transformers-{backend}-http", (TORCH, packages))
        command = [python, str(SCRIPT), folder, "--backend", backend, "--file", file]
        with running(command, **APART):
            return command, f"{backend}, {file}"
    except RuntimeError as error:
        return in_torch, f"PyTorch, since it cannot open {file}: {str(error).strip().splitlines()[-1]}"
