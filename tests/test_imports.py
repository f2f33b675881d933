"""Imports go one way, and importing the package loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hfcompress"

# From the bottom to the top; a module may import from its own layer and from those below.
LAYERS = [
    {
        "errors",
        "files",
        "layout",
        "progress",
        "quiet",
        "machine",
        "markdown",
        "metric_names",
        "modeling_hfcompress",
        "recipe",
        "optimum_config",
    },
    {"architectures", "plan"},
    {"packing", "models", "surgery", "sparsity", "checkpoint", "data", "vocabulary", "costs"},
    {
        "rankers",
        "training.losses",
        "evaluation.report",
        "evaluation.metrics",
        "evaluation.significance",
        "evaluation.schema",
        "evaluation.speed",
        "evaluation.structure",
        "evaluation.explanation",
        "evaluation.measures",
    },
    {"training", "quantization"},
    {"importance"},
    {"probes", "latency", "training.gradual"},
    {"search", "evaluation", "figures"},
    {"calibration", "pruning", "training.report"},
    {"front_matter", "snippets", "verdicts", "card", "workspace", "checks", "doctor"},
    {"oneshot", "run_data", "hub"},
    {"steps"},
    {"pipeline"},
    {"compress"},
    {"cli"},
    {"__main__", "optimum_cli", "optimum_namespace"},
]


def layer_of(module: str) -> int:
    """The layer of `hfcompress.MODULE`: by its own name, else by its folder's."""
    for name in (module, module.split(".")[0]):
        for number, members in enumerate(LAYERS):
            if name in members:
                return number
    raise AssertionError(f"{module} is in no layer: add it to LAYERS")


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hfcompress"):
            inner = node.module.removeprefix("hfcompress").lstrip(".")
            found |= {inner} if inner else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path: Path) -> None:
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    if module == "__init__":
        return
    upward = sorted(name for name in imports_of(path) if layer_of(name) > layer_of(module))
    assert not upward, f"{module} imports from a layer above: {upward}"


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import hfcompress", ("torch", "transformers", "onnxruntime", "openvino", "datasets", "matplotlib")),
        ("import hfcompress.optimum_cli", ("torch", "transformers", "onnxruntime", "openvino", "datasets", "typer")),
        ("import hfcompress.cli", ("torch", "transformers", "onnxruntime", "openvino", "datasets", "matplotlib")),
        ("import hfcompress; hfcompress.load_ranker", ("onnxruntime", "openvino", "nncf", "datasets")),
        ("import hfcompress; hfcompress.apply_plan", ("onnxruntime", "openvino", "datasets")),
    ],
)
def test_importing_loads_nothing_heavy(statement: str, unwanted: tuple[str, ...]) -> None:
    code = f"import sys; {statement}; print([name for name in {unwanted!r} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
