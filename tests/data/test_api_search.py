"""The built-in set, built from a small source tree of the test's own instead of the installed libraries."""

from __future__ import annotations

import importlib.metadata
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from hfcompress.data import api_search
from hfcompress.data.api_search import load_api_search
from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData, stable_hash, validate
from hfcompress.recipe import DataStep

NOUNS = ("matrix", "vector", "graph", "string", "socket", "thread", "record", "window", "signal", "folder")
VERBS = ("sorts", "merges", "copies", "splits", "rotates", "encodes", "flushes", "closes")
BODY = "It takes the object named above and gives back a new one of the same kind."


def function(name: str, docstring: str, indent: str = "") -> str:
    quoted = textwrap.indent(f'"""{docstring}"""', f"{indent}    ")
    return f"{indent}def {name}():\n{quoted}\n\n"


def generated(verb: str) -> str:
    """A module with one function a noun, each docstring of its own."""
    return "".join(
        function(
            f"{verb}_{noun}",
            f"Carefully {verb} the given {noun} in place.\n\n{BODY} {noun} {verb} number {len(noun) * len(verb)}.",
        )
        for noun in NOUNS
    )


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the standard library and one package, with eighty usable docstrings."""
    stdlib, package = tmp_path / "stdlib", tmp_path / "package"
    for number, verb in enumerate(VERBS):
        folder = stdlib if number % 2 else package
        folder.mkdir(exist_ok=True)
        (folder / f"{verb}.py").write_text(generated(verb), encoding="utf-8")
    monkeypatch.setattr(api_search, "source_roots", lambda: iter([("", stdlib), ("package", package)]))
    return tmp_path


def build(limits: dict[str, int | None] | None = None) -> RankingData:
    return validate(load_api_search(limits, progress=False))


def names(data: RankingData) -> dict[str, list[str]]:
    return {split: list(data.splits[split].qrels) for split in data.splits}


@pytest.fixture
def entries_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, tuple[str, str]]]:
    """Reads the entries of one module with the given source."""

    def read(source: str, name: str = "module.py") -> dict[str, tuple[str, str]]:
        path = tmp_path / "sources" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
        monkeypatch.setattr(api_search, "source_roots", lambda: iter([("", tmp_path / "sources")]))
        return {found: (query, body) for found, query, body in api_search.read_entries(progress=False)}

    return read


# The whole set


def test_two_builds_are_equal(tree: Path) -> None:
    first, second = build(), build()
    assert first.fingerprint() == second.fingerprint()
    assert names(first) == names(second)


def test_shape_of_the_data(tree: Path) -> None:
    data = build()
    assert data.name == "api-search"
    assert list(data.splits) == ["train", "dev", "test"]
    assert len(data.corpus) == len(VERBS) * len(NOUNS)
    assert sum(len(split) for split in data.splits.values()) == len(VERBS) * len(NOUNS)
    assert all(len(split) for split in data.splits.values())
    assert len(data.splits["train"]) > len(data.splits["test"])
    assert data.publish_texts and data.license
    (note,) = data.notes
    assert all(f"{name} {importlib.metadata.version(name)}" in note for name in api_search.PACKAGES)


def test_one_relevant_document_a_query_which_is_its_own(tree: Path) -> None:
    data = build()
    for split in data.splits.values():
        assert set(split.qrels) == set(split.candidates)
        for query, grades in split.qrels.items():
            assert grades == {query: 1}
            assert len(split.candidates[query]) == len(set(split.candidates[query])) == api_search.CANDIDATES
    query = "sorts.sorts_matrix" if "sorts.sorts_matrix" in data.queries else "package.sorts.sorts_matrix"
    assert data.queries[query] == "Carefully sorts the given matrix in place"
    assert data.corpus[query].content == f"{query} {BODY} matrix sorts number 30."


def test_no_query_text_in_two_splits(tree: Path) -> None:
    data = build()
    texts = [data.queries[query].lower() for split in names(data).values() for query in split]
    assert len(texts) == len(set(texts))
    assert set(data.queries) == {query for split in names(data).values() for query in split}


def test_equal_queries_and_equal_bodies_are_dropped(tree: Path) -> None:
    same_query = [
        function(f"same_query_{number}", f"Opens the door of a house.\n\n{BODY} The house has {number} windows.")
        for number in range(2)
    ]
    same_body = [
        function(f"same_body_{word}", f"Closes the {word} of a garden.\n\n{BODY}") for word in ("gate", "pond")
    ]
    # Case, punctuation and spaces make no other text.
    almost = function("same_body_almost", f"Paints the wall of a garden.\n\n{BODY.upper().replace(' ', '  ')}!")
    (tree / "stdlib" / "doubles.py").write_text("".join([*same_query, *same_body, almost]), encoding="utf-8")
    data = build()
    assert {"doubles.same_query_0", "doubles.same_query_1"} <= set(data.corpus)  # two different documents
    assert not {"doubles.same_query_0", "doubles.same_query_1"} & set(data.queries)
    assert not {name for name in (*data.corpus, *data.queries) if "same_body" in name}
    bodies = [" ".join(document.text.lower().split()) for document in data.corpus.values()]
    assert len(bodies) == len(set(bodies))


def test_split_goes_by_name_and_does_not_move_when_files_are_added(tree: Path) -> None:
    before = names(build())
    (tree / "stdlib" / "another.py").write_text(generated("another"), encoding="utf-8")
    (tree / "package" / "sub").mkdir()
    (tree / "package" / "sub" / "more.py").write_text(generated("more"), encoding="utf-8")
    after = names(build())
    assert sum(map(len, after.values())) == sum(map(len, before.values())) + 2 * len(NOUNS)
    for split in before:
        assert set(before[split]) <= set(after[split])
        kept = set(before[split])
        assert [name for name in after[split] if name in kept] == before[split]
        assert after[split] == sorted(after[split], key=stable_hash)


def test_shares_of_the_splits() -> None:
    splits = Counter(api_search._split_of(f"module.function_{number}") for number in range(10_000))
    shares = {split: count / 10_000 for split, count in splits.items()}
    assert shares == pytest.approx({"train": 0.7, "dev": 0.1, "test": 0.2}, abs=0.02)


def test_limits_keep_the_first_by_hash(tree: Path) -> None:
    everything, limited = names(build()), build({"train": 5, "dev": None, "test": 2})
    assert names(limited) == {
        "train": everything["train"][:5],
        "dev": everything["dev"],
        "test": everything["test"][:2],
    }
    assert len(limited.corpus) == len(build().corpus)  # all documents can still be retrieved
    assert len(limited.queries) == 7 + len(everything["dev"])


def test_a_recipe_limits_queries_and_candidates(tree: Path) -> None:
    step = DataStep.model_validate({"sets": ["api-search"], "candidates": 7, "max_queries": {"train": 3, "test": 2}})
    data = load_data(step, progress=False)
    assert (len(data.splits["train"]), len(data.splits["test"])) == (3, 2)
    assert {len(found) for split in data.splits.values() for found in split.candidates.values()} == {7}


def test_a_name_found_twice_counts_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = build()
    monkeypatch.setattr(
        api_search, "source_roots", lambda: iter([("", tree / "stdlib"), *[("package", tree / "package")] * 2])
    )
    assert build().fingerprint() == once.fingerprint()


# Which files and names


def test_test_folders_and_private_folders_are_skipped(tree: Path) -> None:
    before = set(build().corpus)
    for folder in ("tests", "test", "_internal", "test_helpers", "site-packages", "sub/testing"):
        path = tree / "stdlib" / folder / "module.py"
        path.parent.mkdir(parents=True)
        path.write_text(generated("hides"), encoding="utf-8")
    assert set(build().corpus) == before


def test_names_of_modules_and_packages(tree: Path) -> None:
    usable = function("run", f"Runs the whole of a task at once.\n\n{BODY} task at once.")
    for path in (tree / "package" / "__init__.py", tree / "package" / "sub" / "__init__.py"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(usable.replace("task", path.parent.name), encoding="utf-8")
    assert {"package.run", "package.sub.run"} <= set(build().corpus)


@pytest.mark.parametrize(
    "content",
    [
        b'def broken(:\n    """Says something about nothing at all. And more."""\n',
        b'"""latin \xff"""\n',
        b'x = """\x00"""\n',
        b'{% template %}\n"""text"""\n',
        b"",
    ],
    ids=["syntax error", "not UTF-8", "a NUL byte", "a template", "nothing"],
)
def test_files_that_are_no_python_are_skipped(tree: Path, content: bytes) -> None:
    before = build().fingerprint()
    (tree / "stdlib" / "broken.py").write_bytes(content)
    assert build().fingerprint() == before


def test_private_names_are_skipped_and_members_are_named(
    entries_of: Callable[[str], dict[str, tuple[str, str]]],
) -> None:
    doc = "Reads the next {} from the open file.\n\nBlocks until there is one, or until the file has been closed."
    source = (
        function("_private", doc.format("byte"))
        + function("public", doc.format("line"))
        + f'class Reader:\n    """{doc.format("word")}"""\n\n'
        + function("read", doc.format("page"), "    ")
        + function("_read", doc.format("bit"), "    ")
        + function("__iter__", doc.format("item"), "    ")
        + f'class _Hidden:\n    """{doc.format("leaf")}"""\n\n'
        + function("read", doc.format("folio"), "    ")
        + "async "
        + function("later", doc.format("message"))
        + "def bare():\n    return 1\n"
    )
    found = entries_of(source)
    assert set(found) == {"module.public", "module.Reader", "module.Reader.read", "module.later"}
    assert found["module.Reader.read"][0] == "Reads the next page from the open file"


# Query and body


def entry(entries_of: Callable[[str], dict[str, tuple[str, str]]], docstring: str) -> tuple[str, str] | None:
    return entries_of(function("f", docstring)).get("module.f")


REST = "The result is a new list whose items are in ascending order."


@pytest.mark.parametrize(
    ("docstring", "query"),
    [
        (f"Sort the items of a list. {REST}", "Sort the items of a list"),
        (f"Sort the items of a list.\n\n{REST}", "Sort the items of a list"),
        (f"Sort the items of a list\n\n{REST}", "Sort the items of a list"),
        (f"Sort the items\n    of a list.\n\n    {REST}", "Sort the items of a list"),
        (f"Is a list in order already? {REST}", "Is a list in order already?"),
        (f"Sort, e.g. by size, the items of a list. {REST}", "Sort, e.g. by size, the items of a list"),
        (f"Sort the items of version 1.5 lists. {REST}", "Sort the items of version 1.5 lists"),
        (f"Sort the ``items`` of a :class:`list`. {REST}", "Sort the items of a list"),
        (f"Sort the **items** of a *list*. {REST}", "Sort the items of a list"),
        (f"Sort the `items` of a :py:class:`list`. {REST}", "Sort the items of a list"),
    ],
)
def test_first_sentence_without_markup_is_the_query(
    entries_of: Callable[[str], dict[str, tuple[str, str]]], docstring: str, query: str
) -> None:
    assert entry(entries_of, docstring) == (query, REST)


def test_doctests_and_layout_are_left_out(entries_of: Callable[[str], dict[str, tuple[str, str]]]) -> None:
    docstring = (
        "Sort the items of a list.\n\nParameters\n----------\n.. versionadded:: 2.0\n"
        f"{REST}\n\n>>> sort([2, 1])\n>>> for item in items:\n...     print(item)\n\n~~~~~\nThat is all."
    )
    found = entry(entries_of, docstring)
    assert found == ("Sort the items of a list", f"Parameters {REST} That is all.")


def test_long_bodies_are_cut(entries_of: Callable[[str], dict[str, tuple[str, str]]]) -> None:
    words = [f"word{number}" for number in range(100)]
    found = entry(entries_of, f"Sort the items of a list.\n\n{' '.join(words)}")
    assert found is not None
    assert found[1].split() == words[: api_search.MAX_BODY_WORDS]


@pytest.mark.parametrize(
    "docstring",
    [
        "Sort the items of a list.",
        "Sort the items of a list.\n\nAscending, always.",
        f"Sort a list.\n\n{REST}",
        f"Sort {'very ' * 40}long lists.\n\n{REST}",
        f"Sort the items of a list.\n\nUse this to sort the items, of a LIST. {REST}",
    ],
    ids=["no body", "short body", "short query", "long query", "body holds the query"],
)
def test_docstrings_of_no_use_are_left_out(
    entries_of: Callable[[str], dict[str, tuple[str, str]]], docstring: str
) -> None:
    assert entry(entries_of, docstring) is None
