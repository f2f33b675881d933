"""The folder of a finished run, checked for everything that must not be published."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfcompress.card import render
from hfcompress.card.front_matter import read_front_matter
from hfcompress.errors import OutputError
from hfcompress.hub.leaks import is_absolute_path, machine_paths_in, machine_paths_in_file, secrets_in
from hfcompress.models.graph_files import graph_files
from hfcompress.models.layout import (
    ADDED,
    ALTERNATIVE_FOLDER,
    CARD_FILE,
    COMMON_FILES,
    GENERATED,
    VOCABULARIES,
    WORK_FOLDER,
    matches,
)
from hfcompress.models.load import load_config
from hfcompress.models.surgery import plan_of_config
from hfcompress.optimum_config import RankerCompressionConfig
from hfcompress.report.report import RunReport
from hfcompress.utils.json_files import is_lfs_pointer, require_content

_TEXT = {".json", ".yaml", ".md", ".py", ".txt", ".xml", ".jinja", ".svg", ""}
_CODE = re.compile(r"^(`{3,}).*?^\1`*$|(`+)[^`].*?\2", re.DOTALL | re.MULTILINE)
_UNSET = re.compile(
    r"(?:^|(?<=[\s|*(\[:=+-]))(?:None(?! of\b)|nan|NaN|[+-]?inf|undefined|\{\{.*?\}\})(?=[\s|*)\],.;:%x]|$)",
    re.MULTILINE,
)
_SHOWN = 5  # examples in an error message


@dataclass(frozen=True)
class Repository:
    """A folder that can be published.

    Attributes:
        folder: The folder.
        files: Sorted relative paths of the files to publish, with slashes.
        report: The report of the run.
        license: Licence in the front matter of the card.
        rendered: Whether the card is exactly what `hfcompress card` renders from the report.
    """

    folder: Path
    files: tuple[str, ...]
    report: RunReport
    license: str
    rendered: bool

    def path(self, file: str) -> Path:
        """Path of a file on disk."""
        return self.folder / file

    def size(self, file: str) -> int:
        """Size of a file in bytes."""
        return self.path(file).stat().st_size


def read_repository(folder: Path, token: str | None = None) -> Repository:
    """Read the folder of a finished run, with all checks that do not need the Hub.

    Args:
        folder: Output folder of `hfcompress run`; its folders `.hfcompress` and `alternative` are ignored.
        token: The Hub token in use, which no file may contain.

    Raises:
        OutputError: It is not the folder of a finished run of this version, it has unexpected or missing files, the
            card is invalid or names no licence, or a file contains a secret or a path of this machine.
        ModelError: The model or a graph cannot be opened.
        PlanError: The pruning plan is damaged or has another format.
    """
    report = RunReport.load(folder)
    files = _files(folder)
    _check_complete(folder, files, report)
    plan_of_config(load_config(str(folder)))
    card = _text(folder / CARD_FILE)
    front = read_front_matter(card)
    _check_body(folder, card)
    _check_leaks(folder, files, token)
    return Repository(folder, files, report, front["license"], card == render(report))


def _files(folder: Path) -> tuple[str, ...]:
    """Paths of all files in the folder except in its work folder and that of an alternative."""
    files, stray = [], []
    for path in sorted(_walk(folder)):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not path.is_file() or not matches(name, GENERATED + ADDED):
            stray.append(name)
        else:
            files.append(name)
    if stray:
        raise OutputError(
            f"{folder} contains {len(stray)} unexpected files",
            value=stray[:_SHOWN],
            expected="only the files of a run, and LICENSE or NOTICE; links are not followed",
            remedy="move them elsewhere",
        )
    return tuple(files)


def _walk(folder: Path) -> Iterator[Path]:
    """Files and links below a folder, without work folder and alternative; links to folders are not followed."""
    for path in folder.iterdir():
        if path.is_symlink() or not path.is_dir():
            yield path
        elif path.name not in (WORK_FOLDER, ALTERNATIVE_FOLDER):
            yield from _walk(path)


def _check_complete(folder: Path, files: Sequence[str], report: RunReport) -> None:
    needed = {CARD_FILE, *COMMON_FILES, RankerCompressionConfig.CONFIG_NAME}
    needed |= {artifact.path for artifact in report.artifacts}
    for file in files:
        needed |= {Path(os.path.relpath(path, folder)).as_posix() for path in graph_files(folder / file)}
    if (folder / CARD_FILE).is_file():
        needed |= set(re.findall(r"!\[[^\]]*\]\((?!https?:)([^)\s]+)\)", _text(folder / CARD_FILE)))
    if pruning := report.pruning:
        needed |= {"modeling_hfcompress.py"} if pruning.custom_code else set()
    for file in files:
        if is_lfs_pointer(folder / file):
            require_content(folder / file, OutputError)
    missing = sorted(name for name in needed if name not in files or not (folder / name).stat().st_size)
    if missing:
        raise OutputError(
            f"{folder} is not complete",
            value=missing[:_SHOWN],
            expected="every file that the report, the card and the graphs name",
            remedy="finish the run with the same command and --resume",
        )


def _check_body(folder: Path, card: str) -> None:
    """Reject values that were never set, outside of code."""
    prose = _CODE.sub("", card)
    found = _UNSET.findall(prose)
    if found:
        raise OutputError(
            f"{folder / CARD_FILE} contains values that are not set",
            value=list(dict.fromkeys(found))[:_SHOWN],
            expected="a number or a text for every value",
            remedy="render it again: hfcompress card DIR",
        )


def _check_leaks(folder: Path, files: Sequence[str], token: str | None) -> None:
    secrets, paths = [], []
    for file in files:
        path = folder / file
        if path.suffix not in _TEXT:
            paths += [f"{file}: {found}" for found in machine_paths_in_file(path)]
            continue
        texts = list(_strings(_json(path))) if path.suffix == ".json" else [_text(path)]
        text = "\n".join(texts)
        secrets += [f"{file}: {found}" for found in secrets_in(text, token or "")]
        if file not in VOCABULARIES:
            whole = [text for text in texts if is_absolute_path(text)]
            paths += [f"{file}: {found}" for found in dict.fromkeys([*whole, *machine_paths_in(text)])]
    if secrets:
        raise OutputError(
            "Files contain possible secrets",
            value=secrets[:_SHOWN],
            expected="no tokens, keys or passwords",
            remedy="remove them from their source (probably the recipe), and revoke those that are real",
        )
    if paths:
        raise OutputError(
            "Files contain absolute paths of a machine",
            value=paths[:_SHOWN],
            expected="relative paths or Hub ids",
            remedy=(
                "use relative paths for data and models in the recipe and run it again; graphs that an earlier version "
                "exported need a new run too"
            ),
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _unreadable(path, "text in UTF-8", error) from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise _unreadable(path, "JSON", error) from error


def _unreadable(path: Path, expected: str, error: Exception) -> OutputError:
    return OutputError(
        f"{path} cannot be read",
        value=str(error),
        expected=expected,
        remedy="finish the run with the same command and --resume",
    )


def _strings(value: Any) -> Iterator[str]:
    """All strings in JSON data, including keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
