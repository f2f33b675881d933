"""The documentation: links lead somewhere, code compiles, commands exist, recipes are valid, and marked blocks run."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import pytest
import typer
import yaml
from conftest import IDENTITY, make_pico, write_beir
from pydantic import BaseModel
from transformers import BertTokenizerFast

import hfcompress
from hfcompress.cli import app, main
from hfcompress.data.ranking import RankingData
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.plan import PruningPlan
from hfcompress.recipe import Recipe

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
FENCE = re.compile(r"(?P<run><!-- run -->\n)?^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
SCREENSHOT = "serve-page.png"  # by scripts/page_screenshot.py, with the time of a day
BASE: dict[str, Any] = {
    "name": "example",
    "data": {"sets": ["my-data"]},
    "teacher": {"model": "my-reranker"},
    "prune": {"heads": 0.5},
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    code: str
    runs: bool


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, *languages: str) -> list[Block]:
    found = FENCE.finditer(path.read_text(encoding="utf-8"))
    all_blocks = [Block(match["language"], match["code"], bool(match["run"])) for match in found]
    return [block for block in all_blocks if block.language in languages]


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """Anchors of the headings, as Python-Markdown makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    texts = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[-\s]+", "-", text) for text in texts}


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a shell block, split into words."""
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for match in LINK.finditer(prose(path)):
        address, _, anchor = match["target"].partition("#")
        if "://" in address:
            continue
        target = path.parent / address if address else path
        assert target.exists(), match["target"]
        assert not match["image"] or match["text"], f"{match['target']} has no text for those who cannot see it"
        assert not anchor or anchor in anchors(target), match["target"]


def test_navigation_lists_every_page() -> None:
    def leaves(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for part in entry.values() if isinstance(entry, dict) else entry:
                yield from leaves(part)

    project = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(leaves(project["nav"])) == sorted(str(path.relative_to(DOCS)) for path in PAGES)


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_python_blocks_compile(path: Path) -> None:
    for block in blocks(path, "python"):
        compile(block.code, name_of(path), "exec")


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_shell_blocks_name_what_exists(path: Path) -> None:
    for block in blocks(path, "bash"):
        for words in commands(block.code):
            check_command(words)


def check_command(words: list[str]) -> None:
    program, *arguments = words
    if program == "optimum-cli":
        program, arguments = "hfcompress", arguments[1:]
    if program == "hfcompress":
        check_verb(typer.main.get_command(app), arguments)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in (word for word in arguments if "=" not in word):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        asked = ",".join(re.findall(r"\[(.+)\]", arguments[-1])).split(",")
        assert arguments[0] == "install" and set(asked) - {""} <= project["optional-dependencies"].keys()
    elif program in ("python", "accelerate"):
        index = next(index for index, word in enumerate(arguments) if word.endswith(".py"))
        script = (ROOT / arguments[index]).read_text(encoding="utf-8")
        for option in (word for word in arguments[index:] if word.startswith("--")):
            assert f'"{option}"' in script, option
    elif program == "curl":
        address = next(word for word in arguments if word.startswith("http://127.0.0.1:8080/"))
        assert address.rpartition("8080")[2] in ("/rerank", "/v1/rerank", "/v2/rerank", "/info")  # sent by tests/serve
    else:
        assert program == "hf", f"{program}: no test knows this program"


def check_verb(command: click.Command, arguments: list[str]) -> None:
    """Parse arguments as the command line does, and run nothing."""
    while isinstance(command, click.Group):
        name, *arguments = arguments
        assert name in command.commands, name
        command = command.commands[name]
    command.make_context(command.name, list(arguments))


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_recipes_are_valid(path: Path) -> None:
    for block in blocks(path, "yaml"):
        settings = yaml.safe_load(block.code)
        Recipe.from_yaml(yaml.safe_dump(settings if "name" in settings else BASE | settings))


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_recipe_keys_in_the_text_exist(path: Path) -> None:
    sections = "data|teacher|prune|recover|quantize|evaluate|publish"
    for key in re.findall(rf"`((?:{sections})(?:\.(?!py\b)\w+)+)", prose(path)):  # not `prune.py`
        model: Any = Recipe
        for part in key.split("."):
            assert model is not None and part in model.model_fields, key
            model = model_in(model.model_fields[part].annotation)


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The first section among the types of a key."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := model_in(part))), None)


def test_plans_of_the_checkpoint_page_can_be_read() -> None:
    plan, config = (yaml.safe_load(block.code) for block in blocks(DOCS / "checkpoint.md", "json"))
    assert len(PruningPlan.from_dict(plan).layers) == 3
    assert PruningPlan.from_dict(config["hfcompress"]["plan"]).layers_of == 4


def test_api_page_documents_what_exists() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    documented = []
    for path in re.findall(r"^::: (\S+)", text, re.MULTILINE):
        module = next(head for head in heads(path) if importlib.util.find_spec(head))
        found = importlib.import_module(module)
        for name in path.removeprefix(module).split(".")[1:]:
            found = getattr(found, name)
        assert found.__doc__, path
        documented.append(found)
    assert all(any(getattr(hfcompress, name) is each for each in documented) for name in hfcompress.__all__)


def heads(path: str) -> Iterator[str]:
    """`a.b.c`, `a.b`, `a`; those whose parent is no package left out."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        parent = ROOT.joinpath(*parts[: length - 1])
        if parent.is_dir():
            yield ".".join(parts[:length])


@pytest.fixture
def workplace(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tokenizer: BertTokenizerFast,
    word_data: RankingData,
    repository: Path,
) -> Path:
    """What a reader has: a cross-encoder, data, documents, recipes, and a finished run."""
    save_checkpoint(tmp_path / "my-reranker", make_pico(), tokenizer, IDENTITY, 32)
    write_beir(tmp_path / "my-data", word_data)
    (tmp_path / "documents.txt").write_text("list.sort sorts the list in place\ntuple.count counts a value\n")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    shutil.copytree(repository, tmp_path / "out" / "mine")
    shutil.copy(ROOT / "model_cards" / "quickstart" / "report.json", tmp_path / "out" / "mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


RUNNABLE = [path for path in PAGES if any(block.runs for block in blocks(path, "python", "bash"))]


@pytest.mark.parametrize("path", RUNNABLE, ids=name_of)
def test_marked_blocks_run(path: Path, workplace: Path) -> None:
    names: dict[str, Any] = {"__name__": "docs"}
    for block in blocks(path, "python", "bash"):
        if not block.runs:
            continue
        if block.language == "python":
            exec(compile(block.code, name_of(path), "exec"), names)
        else:
            for program, *arguments in commands(block.code):
                assert program == "hfcompress"
                main([*arguments])


def test_recipe_of_the_first_steps_reads_what_is_set(workplace: Path) -> None:
    from hfcompress.steps.checks import check

    words = next(words for block in blocks(DOCS / "getting-started.md", "bash") for words in commands(block.code)
                 if words[:2] == ["hfcompress", "run"])  # fmt: skip
    settings = [words[index + 1] for index, word in enumerate(words) if word == "--set"]
    recipe = Recipe.load(Path(words[2]), settings)
    check(recipe)
    assert (recipe.teacher.model, recipe.data.sets) == ("my-reranker", ["my-data"])


def figures() -> Any:
    spec = importlib.util.spec_from_file_location("figures_for_docs", ROOT / "scripts" / "figures_for_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_are_up_to_date() -> None:
    drawn = figures().FIGURES
    shown = {Path(match["target"]).name for path in PAGES for match in LINK.finditer(prose(path)) if match["image"]}
    assert shown == {*drawn, SCREENSHOT} == {path.name for path in (DOCS / "figures").iterdir()}
    for name, draw in drawn.items():
        kept, fresh = (DOCS / "figures" / name).read_bytes(), draw()
        assert same(kept, fresh), f"{name}: run python scripts/figures_for_docs.py"


def same(first: bytes, second: bytes) -> bool:
    """Whether two images are equal, coordinates of SVG up to rounding, which differs between processors."""
    if not first.startswith(b"<?xml"):
        return first == second
    number = re.compile(rb"-?\d+\.\d+")
    left, right = (np.array(number.findall(image), dtype=float) for image in (first, second))
    names = re.compile(rb"[mp][0-9a-f]{10}")  # of markers and patterns, hashed from their coordinates
    shapes = [names.sub(b"", number.sub(b"", image)) for image in (first, second)]
    return shapes[0] == shapes[1] and len(left) == len(right) and np.allclose(left, right, atol=0.05)
