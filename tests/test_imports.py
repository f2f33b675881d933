"""Imports go one way, and importing the package loads nothing heavy."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "hfcompress"
DOORS = {"__init__", "__main__"}  # of the package itself: above everything


def layers() -> dict[str, int]:
    """Packages and root modules by their row in CONTRIBUTING.md's table, from the bottom of the imports to the top."""
    table = re.search(
        r"\| package or module \|.*?\n\n", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert table
    rows = table[0].strip().splitlines()[2:]
    return {
        name.removesuffix("/").removesuffix(".py"): number
        for number, row in enumerate(rows)
        for name in re.findall(r"`([a-z_]+(?:/|\.py))`", row.split("|")[1])
    }


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py") if "optimum_namespace" not in path.parts}


def imports_of(path: Path) -> Iterator[str]:
    """Modules of the package that a module imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("hfcompress.") for alias in node.names if "hfcompress." in alias.name)
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            if node.module and node.module.partition(".")[0] == "hfcompress":
                inside = node.module.removeprefix("hfcompress").lstrip(".")
                for alias in node.names:
                    name = f"{inside}.{alias.name}".lstrip(".")
                    yield name if name in MODULES else inside


def test_the_table_names_every_package_and_root_module() -> None:
    there = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert there - DOORS - {"__pycache__", "py.typed"} == set(layers())
    assert len(list(PACKAGE.glob("*.py"))) <= 9


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_one_way(module: str) -> None:
    if module in DOORS:
        return
    rows = layers()
    row = rows[module.partition(".")[0]]
    upward = sorted({name for name in imports_of(MODULES[module]) if name and rows[name.partition(".")[0]] > row})
    assert not upward, f"{module} imports from rows below its own in CONTRIBUTING.md's table: {upward}"


def test_no_modules_import_each_other() -> None:
    """Nor packages within packages: raises CycleError, which names the modules."""
    modules = {name: {other for other in imports_of(path) if other != name} for name, path in MODULES.items()}
    TopologicalSorter(modules).prepare()
    packages: dict[str, set[str]] = {}
    for name, imported in modules.items():
        own = name.rpartition(".")[0] or name
        others = {other.rpartition(".")[0] or other for other in imported}
        packages.setdefault(own, set()).update(others - {own})
    TopologicalSorter(packages).prepare()


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
