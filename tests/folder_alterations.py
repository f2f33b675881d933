"""Faults of folders: each file and each key of a good folder altered, one at a time."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from conftest import MARK, WORDS

from hfcompress.report.report import REPORT_FILE

PAIRS = [
    *((" ".join(WORDS[n : n + 3]), " ".join(WORDS[2 * n : 2 * n + 1 + n % 9])) for n in range(6)),
    *((" ".join(WORDS[n : n + 9]), " ".join(WORDS[n + 9 : n + 18])) for n in range(0, len(WORDS), 18)),
    ("ba " * 40, f"{MARK} " * 50),  # longer than the model's 32 tokens
    ("Ba, de!", "unknown Ünïcode 世界 sun"),
]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a2146" * 8 + b"\nsize 12345\n"
GARBAGE = np.random.default_rng(0).integers(0, 256, 200, dtype=np.uint8).tobytes()
NESTED = 3  # depth of the keys that are altered


@dataclass(frozen=True)
class Alteration:
    """One change of one file: its new content, or None to remove it."""

    file: str
    what: str
    content: bytes | None

    @property
    def name(self) -> str:
        return f"{self.file}: {self.what}"


def altered_files(folder: Path) -> Iterator[Alteration]:
    """Each file removed, empty, truncated, or with another content."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content, file = path.read_bytes(), path.relative_to(folder).as_posix()
        kinds: dict[str, bytes | None] = {
            "removed": None, "empty": b"", "truncated": content[: len(content) // 2], "pointer": POINTER,
            "garbage": GARBAGE,
        }  # fmt: skip
        if path.suffix == ".json":
            kinds |= {"null": b"null", "a list": b"[]", "a number": b"7", "no keys": b"{}"}
        yield from (Alteration(file, what, altered) for what, altered in kinds.items())


def altered_keys(folder: Path) -> Iterator[Alteration]:
    """Each key of each JSON file removed, null, of a wrong type, zero, negative or flipped."""
    for path in sorted(folder.rglob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            for keys in key_paths(content, 1 if path.name == REPORT_FILE else NESTED):
                for what, altered in altered_values(content, keys):
                    text = json.dumps(altered).encode()
                    yield Alteration(path.relative_to(folder).as_posix(), f"{'.'.join(keys)} {what}", text)


def key_paths(content: dict[str, Any], depth: int, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in content.items():
        yield (*before, key)
        if isinstance(value, dict) and depth > 1 and key not in ("vocab", "weight_map"):
            yield from key_paths(value, depth - 1, (*before, key))


def altered_values(content: dict[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    *outer, last = keys
    old = content
    for key in keys:
        old = old[key]
    for what, value in {"removed": None, "null": None, "of a wrong type": wrong_type(old), **other_values(old)}.items():
        altered = copy.deepcopy(content)
        inner = altered
        for key in outer:
            inner = inner[key]
        if what == "removed":
            del inner[last]
        else:
            inner[last] = value
        if altered != content:
            yield what, altered


def wrong_type(value: Any) -> Any:
    if value is None:
        return ["wrong"]
    return 7 if isinstance(value, str) else {"wrong": 1} if isinstance(value, list) else "wrong"


def other_values(value: Any) -> dict[str, Any]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return {"zero": 0, "negative": -1} if number else {"flipped": not value} if isinstance(value, bool) else {}
