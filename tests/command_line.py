"""Input for tests of the command line: data and recipes on disk, and checks of what a command did with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from hfcompress.steps.workspace import STATE_FORMAT

DOCUMENTS = 12
POSITIONS = 64
Command = Callable[..., tuple[int, str]]
Change = tuple[str, Any]


class LongWork(Exception):
    """Raised in place of long work."""


def write_data(folder: Path) -> Path:
    """A small sound data folder with candidates and all three splits."""
    corpus = [{"_id": f"d{number}", "title": "", "text": f"the cat {number}"} for number in range(DOCUMENTS)]
    queries = [{"_id": f"q{number}", "text": f"the dog {number}"} for number in range(9)]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for split, numbers in (("train", range(4)), ("dev", range(4, 6)), ("test", range(6, 9))):
        write_table(folder / "qrels" / f"{split}.tsv", [(f"q{number}", f"d{number}", "1") for number in numbers])
        ranks = [(f"q{number}", f"d{(number + step) % 12}", str(step + 1)) for number in numbers for step in range(5)]
        write_table(folder / "bm25" / f"{split}.tsv", ranks)
    return folder


def write_table(path: Path, rows: list[tuple[str, str, str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def write_recipe(path: Path, settings: dict[str, Any], *changes: Change) -> Path:
    """Write a recipe with the values at dotted paths replaced."""
    copy = yaml.safe_load(yaml.safe_dump(settings))
    for key, value in changes:
        target = copy
        *parents, last = key.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    path.write_text(yaml.safe_dump(copy), encoding="utf-8")
    return path


def snapshot(folder: Path) -> dict[str, bytes | None] | None:
    """All files and folders below `folder` with their contents; None where there is no such folder."""
    if not folder.exists():
        return None
    if folder.is_file():
        return {"": folder.read_bytes()}
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def earlier_run(folder: Path) -> Path:
    """The folder of an earlier run, with some outputs."""
    work = folder / ".hfcompress"
    (work / "teacher").mkdir(parents=True)
    (work / "teacher" / "model.safetensors").write_bytes(b"weights")
    steps = {"teacher": {"fingerprint": "0" * 64, "seconds": 1.0}}
    (work / "state.json").write_text(json.dumps({"format": STATE_FORMAT, "steps": steps}), encoding="utf-8")
    (folder / "README.md").write_text("# A card\n", encoding="utf-8")
    return folder


def clear_fault(result: tuple[int, str], *words: str) -> None:
    code, message = result
    assert code == 2
    assert message.startswith("error: ") and "Traceback" not in message
    assert "Expected: " in message and "Remedy: " in message
    missing = [word for word in words if word not in message]
    assert not missing, f"{missing} not in: {message}"


def rewrite(name: str, rows: list[tuple[str, str, str]]) -> Callable[[Path], None]:
    return lambda folder: write_table(folder / name, rows)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def thesis(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work", encoding="utf-8")
