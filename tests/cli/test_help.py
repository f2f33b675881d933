"""Help, examples, usage errors, exit codes and completion of the command line."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from command_line import Command

from hfcompress import __version__, errors
from hfcompress.cli import EXIT_CODES, app, main

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "datasets", "numpy", "scipy", "tqdm", "matplotlib", "yaml")


def verbs(command: object = None, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Every verb, by the words that name it."""
    found: dict[tuple[str, ...], object] = {}
    for name, inner in (command or typer.main.get_command(app)).commands.items():  # type: ignore[attr-defined]
        if hasattr(inner, "commands"):
            found |= verbs(inner, (*words, name))
        else:
            found[*words, name] = inner
    return found


VERBS = verbs()


def test_the_verbs_are_found() -> None:
    assert {("run",), ("doctor",), ("data", "check"), ("data", "mine"), ("data", "build")} <= set(VERBS)


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_verb_has_an_example_that_its_own_parser_takes(words: tuple[str, ...]) -> None:
    verb = VERBS[words]
    _, *examples = verb.help.split("Example: ")  # type: ignore[attr-defined]
    assert examples
    for example in examples:
        given = shlex.split(" ".join(example.split()))
        assert tuple(given[: 1 + len(words)]) == ("hfcompress", *words)
        verb.make_context(words[-1], given[1 + len(words) :])  # type: ignore[attr-defined]
    assert all(parameter.help for parameter in verb.params if parameter.name != "help")  # type: ignore[attr-defined]


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys; from hfcompress.cli import main; main({arguments}); print(*{{*{HEAVY}}} & sys.modules.keys())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "Usage" in printed and printed.endswith("\n\n")


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_help_shows_it(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    main([*words, "--help"])
    assert "Example: hfcompress" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out.strip() == __version__ == version("hfcompress")


def test_exit_codes_are_documented() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert set(EXIT_CODES) == {0, 1, 2, 3, 130, 143}
    raised = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    assert raised == {1, 2}
    assert all(f"| {code} | {meaning} |" in page for code, meaning in EXIT_CODES.items())


@pytest.mark.parametrize(
    ("before", "wanted"),
    [("hfcompress ", ("run", "prune", "doctor", "data")), ("hfcompress data ", ("check", "mine", "build"))],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, before: str, wanted: tuple[str, ...]) -> None:
    words = {
        "bash": {"COMP_WORDS": before, "COMP_CWORD": str(len(before.split()))},
        "zsh": {"_TYPER_COMPLETE_ARGS": before},
        "fish": {"_TYPER_COMPLETE_ARGS": before, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "_HFCOMPRESS_COMPLETE": f"complete_{shell}", **words}
    code = "import sys; from hfcompress.cli import main; sys.argv = ['hfcompress']; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in wanted)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_shown(shell: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "_HFCOMPRESS_COMPLETE": f"source_{shell}"}
    code = "import sys; from hfcompress.cli import main; sys.argv = ['hfcompress']; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and f"complete_{shell}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["squeeze"], "squeeze"),
        (["compress"], "model"),
        (["run"], "recipe"),
        (["run", "recipe.yaml"], "--out"),
        (["run", "recipe.yaml", "--out", "out", "--fast"], "--fast"),
        (["prune", "model", "--out", "out"], "--data"),
        (["prune", "model", "--data", "x"], "--out"),
        (["evaluate", "model", "--data", "x", "--candidates", "many"], "--candidates"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_usage_errors(command: Command, arguments: list[str], word: str) -> None:
    code, message = command(*arguments)
    assert code == 2 and message.startswith("error: ") and word in message.lower()


def test_no_arguments_show_the_help(command: Command) -> None:
    code, message = command()
    assert code in (0, 2) and not message.rstrip().endswith("error:")
