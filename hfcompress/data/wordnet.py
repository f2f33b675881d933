"""Glosses of WordNet as documents, where its data files are installed.

The files `data.noun`, `data.verb`, `data.adj` and `data.adv` are in the format that wndb(5WN) of WordNet describes.
They are read directly: no package is imported, and nothing is downloaded.
"""

from __future__ import annotations

import io
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from hfcompress.data.document import Document
from hfcompress.errors import DataError

PARTS = ("noun", "verb", "adj", "adv")
SYSTEM_FOLDER = Path("/usr/share/wordnet")  # Debian and its kin
LICENSE = "WordNet licence (Princeton University)"
# A gloss is a definition, followed by examples in quotation marks.
_EXAMPLE = re.compile(r';?\s*"([^"]+)"')
_MARKER = re.compile(r"\((?:a|p|ip)\)$")  # syntactic markers of adjectives


def find_wordnet() -> Path | None:
    """Find the data files: a folder, or the archive that NLTK keeps; None if there are none.

    Searched are the folder in the environment variable `WNSEARCHDIR`, that of Debian's package `wordnet-base`, and
    `corpora/wordnet` in the data folders of NLTK.
    """
    given = os.environ.get("WNSEARCHDIR")
    folders = [*([Path(given)] if given else []), SYSTEM_FOLDER]
    for root in _nltk_folders():
        folders += [root / "corpora" / "wordnet", root / "corpora" / "wordnet.zip"]
    return next((each for each in folders if _has_files(each)), None)


def read_wordnet(path: Path) -> Iterator[tuple[str, Document]]:
    """Yield the synsets: an id, and a document with the words as title and definition and examples as text.

    Args:
        path: What `find_wordnet` has found.

    Raises:
        DataError: A file is missing, or is not in WordNet's format.
    """
    for part in PARTS:
        for number, line in enumerate(_lines(path, part), 1):
            if not line.strip() or line.startswith("  "):  # the licence, at the beginning
                continue
            head, bar, gloss = line.partition(" | ")
            fields = head.split()
            try:
                words = [fields[4 + 2 * index] for index in range(int(fields[3], 16))]
            except (IndexError, ValueError):
                words = []
            if not words or not bar:
                raise DataError(
                    f"{path}, {_file(part)}, line {number}",
                    value=line.strip(),
                    expected="a synset in the format of WordNet 3: offset, words, pointers, and a gloss after a bar",
                    remedy="install WordNet's data files again (Debian: wordnet-base)",
                )
            title = ", ".join(_MARKER.sub("", word).replace("_", " ") for word in words)
            yield f"{part}-{fields[0]}", Document(title, _sentences(gloss))


def _has_files(path: Path) -> bool:
    return path.is_file() if path.suffix == ".zip" else (path / _file("noun")).is_file()


def _sentences(gloss: str) -> str:
    """Definition and examples as sentences."""
    examples = _EXAMPLE.findall(gloss)
    parts = [_EXAMPLE.sub("", gloss), *examples]
    return " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in map(_stripped, parts) if part)


def _stripped(text: str) -> str:
    return text.strip(" ;\n")


def _lines(path: Path, part: str) -> Iterator[str]:
    name = _file(part)
    try:
        if path.is_dir():
            with (path / name).open(encoding="utf-8", errors="replace") as stream:
                yield from stream
        else:
            with zipfile.ZipFile(path) as archive, archive.open(f"wordnet/{name}") as raw:
                yield from io.TextIOWrapper(raw, encoding="utf-8", errors="replace")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"WordNet's {name} cannot be read",
            value=f"{path}: {error}",
            expected=f"{', '.join(map(_file, PARTS))}, as Debian's wordnet-base and NLTK install them",
            remedy="install WordNet's data files again, or name other texts in recover.also",
        ) from error


def _file(part: str) -> str:
    return f"data.{part}"


def _nltk_folders() -> list[Path]:
    """Folders in which NLTK looks for data."""
    named = [Path(each) for each in os.environ.get("NLTK_DATA", "").split(os.pathsep) if each]
    prefixes = [Path(sys.prefix) / name for name in ("nltk_data", "share/nltk_data", "lib/nltk_data")]
    system = [Path(root) / "nltk_data" for root in ("/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib")]
    return [*named, Path.home() / "nltk_data", *prefixes, *system]
