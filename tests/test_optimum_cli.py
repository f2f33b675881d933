"""optimum-cli finds the command without loading anything heavy, and it does what hfcompress does."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import WORDS
from optimum.commands.base import RootOptimumCLICommand
from optimum.commands.optimum_cli import register_optimum_cli_subcommand

from hfcompress.cli import main
from hfcompress.optimum_cli import PROGRAM, CompressCommand

ROOT = Path(__file__).parents[1]
NAMESPACE = ROOT / "hfcompress" / "optimum_namespace"

# What `optimum-cli` itself runs, then a look at what that has loaded.
LISTING = """
import sys
from optimum.commands.optimum_cli import main
sys.argv = ["optimum-cli", "--help"]
try:
    main()
finally:
    print([name for name in ("torch", "transformers", "onnxruntime", "openvino", "datasets", "typer") if name in sys.modules])
"""  # noqa: E501


def registered() -> bool:
    """Whether the installation at hand already tells optimum of the command."""
    try:
        return importlib.util.find_spec("optimum.commands.register.register_hfcompress") is not None
    except ModuleNotFoundError:
        return False


def test_optimum_finds_the_command_and_stays_quick() -> None:
    paths = [str(ROOT), *([] if registered() else [str(NAMESPACE)]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", LISTING], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "compress " in done.stdout and "faster and smaller" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_packages_and_the_namespace_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from setuptools import Distribution
    from setuptools.config.pyprojecttoml import apply_configuration

    monkeypatch.chdir(ROOT)
    distribution = apply_configuration(Distribution(), "pyproject.toml")
    of_ours = [".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "hfcompress").rglob("__init__.py")]
    assert sorted(distribution.packages) == sorted([*of_ours, "optimum.commands.register"])
    folder = Path(distribution.package_dir["optimum.commands.register"])
    assert [path.name for path in folder.glob("*.py")] == ["register_hfcompress.py"]
    assert not list(NAMESPACE.rglob("__init__.py"))  # one would hide Optimum itself


def through_optimum(arguments: list[str]) -> None:
    """What `optimum-cli` does with its arguments."""
    root = RootOptimumCLICommand("Optimum CLI tool", usage="optimum-cli")
    register_optimum_cli_subcommand(CompressCommand, parent_command=root)
    parsed = root.parser.parse_args(["compress", *arguments])
    parsed.func(parsed).run()


def result_of(run: object, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    try:
        run(arguments)  # type: ignore[operator]
        code: object = 0
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["--help"], 0),
        *(
            ([verb, "--help"], 0)
            for verb in (
                "run",
                "evaluate",
                "prune",
                "inspect",
                "rank",
                "score",
                "serve",
                "card",
                "publish",
                "compress",
                "data",
                "doctor",
            )
        ),
        (["data", "check", "--help"], 0),
        (["nonsense"], 2),
        (["--nonsense"], 2),
        (["rank", "--nonsense"], 2),
        (["card"], 2),
        (["card", "missing"], 2),
        (["publish", "missing", "--repo-id", "org/name"], 2),
        (["run", "missing.yaml", "--out", "out", "--set", "prune.heads=0.5", "-q"], 2),
        (["rank", "missing", "--query", "--", "--docs", "missing.txt"], 2),
    ],
    ids=str,
)
def test_it_is_hfcompress(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    given = list(arguments)
    expected = result_of(lambda each: main(each, PROGRAM), given, capsys)
    assert result_of(through_optimum, given, capsys) == expected
    assert expected[0] == code and any(expected[1:])


def test_it_ranks(cross_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs = tmp_path / "documents.txt"
    docs.write_text("\n".join(WORDS[:5]), encoding="utf-8")
    arguments = ["rank", str(cross_encoder), "--query", WORDS[0], "--docs", str(docs), "--top-k", "2"]
    code, printed, _ = result_of(through_optimum, arguments, capsys)
    assert code == 0 and len(printed.splitlines()) == 2
    assert result_of(main, arguments, capsys)[1] == printed
