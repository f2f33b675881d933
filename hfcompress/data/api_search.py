"""The built-in data set `api-search`: docstrings of installed libraries.

A query is the first sentence of a docstring. Its only relevant document is the qualified name with the rest of that
docstring. Source files are parsed with `ast`, so nothing is imported or downloaded, and the same versions give the same
data on every machine.
"""

from __future__ import annotations

import ast
import gc
import importlib.metadata
import importlib.util
import platform
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hfcompress.data.bm25 import retrieve
from hfcompress.data.document import Document
from hfcompress.data.ranking import SPLITS, RankingData, Split, stable_hash
from hfcompress.utils.progress import progress_bar

# Required dependencies only, so that an installed extra does not change the data.
PACKAGES = (
    "accelerate", "datasets", "evaluate", "huggingface_hub", "matplotlib", "networkx", "numpy",
    "optimum", "pandas", "scipy", "sympy", "torch", "transformers",
)  # fmt: skip
SKIPPED_FOLDERS = frozenset({"tests", "test", "testing", "idlelib", "lib2to3", "site-packages", "models", "_vendor"})
MIN_QUERY_WORDS, MAX_QUERY_WORDS = 4, 30
MIN_BODY_WORDS, MAX_BODY_WORDS = 8, 40
CANDIDATES = 20

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\[(*])|\n\s*\n")
# Doctests, underlines of section titles and reStructuredText directives, which are not prose.
_LAYOUT = re.compile(r"^\s*(?:>>>|\.\.\.|\.\. |[-=~^`#*]{3,}\s*$).*$", re.MULTILINE)
_MARKUP = re.compile(r":[a-z:]+:`([^`]*)`|`{1,2}([^`]*)`{1,2}|[*]{1,2}([^*\n]+)[*]{1,2}")


def load_api_search(limits: Mapping[str, int | None] | None = None, progress: bool = True) -> RankingData:
    """Build the data set from the installed libraries.

    Repeated queries, repeated bodies and bodies that contain their own query are dropped, so that no candidate that is
    not relevant has the text of the relevant one. The split is by a hash of the qualified name: 70% train, 10% dev, 20%
    test.

    Args:
        limits: Maximum number of queries by split; candidates are retrieved only for these.
        progress: Show a progress bar.

    Returns:
        Data with `CANDIDATES` BM25 candidates per query in every split.
    """
    entries = sorted(read_entries(progress))
    queries_seen = Counter(_key(query) for _, query, _ in entries)
    bodies_seen = Counter(_key(body) for _, _, body in entries)
    queries: dict[str, str] = {}
    corpus: dict[str, Document] = {}
    for name, query, body in entries:
        if bodies_seen[_key(body)] > 1:
            continue
        if queries_seen[_key(query)] == 1:
            queries[name] = query
        corpus[name] = Document(title=name, text=body)
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in sorted(queries, key=stable_hash):
        splits[_split_of(name)].append(name)
    splits = {split: names[: (limits or {}).get(split)] for split, names in splits.items()}
    queries = {name: queries[name] for names in splits.values() for name in names}
    candidates = retrieve(queries, corpus, CANDIDATES)
    return RankingData(
        name="api-search",
        queries=queries,
        corpus=corpus,
        splits={
            split: Split(
                qrels={name: {name: 1} for name in names},
                candidates={name: candidates[name] for name in names},
            )
            for split, names in splits.items()
        },
        publish_texts=True,
        license="the licences of the libraries that the docstrings are from",
        notes=(f"made from the docstrings of {_sources()}",),
    )


def _sources() -> str:
    packages = [f"{package} {importlib.metadata.version(package)}" for package in PACKAGES]
    return ", ".join([f"Python {platform.python_version()}", *packages])


def _split_of(name: str) -> str:
    bucket = int(stable_hash(name)[:8], 16) % 10
    return "test" if bucket < 2 else "dev" if bucket == 2 else "train"


def _key(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def read_entries(progress: bool) -> Iterator[tuple[str, str, str]]:
    """Yield (qualified name, query, body) of every usable docstring, each name once."""
    files = [item for package, root in source_roots() for item in _source_files(package, root)]
    seen: set[str] = set()
    for module, path in progress_bar(files, desc="reading docstrings", unit="file", disable=not progress, leave=False):
        try:
            source = path.read_bytes()
            if b'"""' not in source and b"'''" not in source:
                continue
            with warnings.catch_warnings(), _no_garbage_collection():
                warnings.simplefilter("ignore", SyntaxWarning)
                tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):  # templates and old syntax kept as data files
            continue
        for name, docstring in _docstrings(tree, module):
            parts = _query_and_body(docstring)
            if parts and name not in seen:
                seen.add(name)
                yield name, *parts


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Syntax trees have no cycles, and looking for some while they grow takes longer than parsing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def source_roots() -> Iterator[tuple[str, Path]]:
    """Yield (name, folder) of the standard library, under an empty name, and of each installed one of `PACKAGES`."""
    yield "", Path(sysconfig.get_paths()["stdlib"])
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations if spec else None) or ():
            yield package, Path(location)


def _source_files(package: str, root: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if SKIPPED_FOLDERS.intersection(parts) or any(part.startswith(("_", "test_")) for part in parts[:-1]):
            continue
        if parts[-1] == "__init__":
            parts = parts[:-1]
        yield ".".join((package, *parts) if package else parts), path


def _docstrings(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if child.name.startswith("_"):
                continue
            name = f"{prefix}.{child.name}"
            if docstring := ast.get_docstring(child):
                yield name, docstring
            if isinstance(child, ast.ClassDef):
                yield from _docstrings(child, name)


def _query_and_body(docstring: str) -> tuple[str, str] | None:
    """Split a docstring into its first sentence and the rest; None if either is too short."""
    text = _LAYOUT.sub("", docstring)
    text = _MARKUP.sub(lambda match: next(group for group in match.groups() if group is not None), text)
    head, *rest = _SENTENCE_END.split(text, maxsplit=1)
    query = " ".join(head.split()).rstrip(".")
    words = " ".join(rest).split()
    body = " ".join(words[:MAX_BODY_WORDS])
    if not MIN_QUERY_WORDS <= len(query.split()) <= MAX_QUERY_WORDS or len(words) < MIN_BODY_WORDS:
        return None
    return None if _key(query) in _key(body) else (query, body)
