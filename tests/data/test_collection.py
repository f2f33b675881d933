"""Queries and documents by id, from files in every format and from data sets, without judgements."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import write_data

from hfcompress.data.collection import Collection, read_collection
from hfcompress.data.document import Document
from hfcompress.errors import DataError


def test_folders_and_files(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data")
    whole = read_collection(str(folder))
    assert len(whole.queries) == 9 and whole.corpus["d3"] == Document("", "the cat 3")
    files = read_collection(str(folder / "corpus.jsonl"), folder / "queries.jsonl")
    assert files == whole and files.fingerprint() == whole.fingerprint()
    trec = tmp_path / "trec"
    trec.mkdir()
    (trec / "docs.trec").write_text("<DOC><DOCNO>d1</DOCNO><HEADLINE>cats</HEADLINE><TEXT>the cat</TEXT></DOC>")
    (trec / "topics.tsv").write_text("q1\tthe dog\n")
    assert read_collection(str(trec)) == Collection({"q1": "the dog"}, {"d1": Document("cats", "the cat")})
    other = read_collection(str(trec), folder / "queries.jsonl")
    assert other.queries == whole.queries and other.fingerprint() != whole.fingerprint()


def test_tables_are_read_as_data(tmp_path: Path) -> None:
    path = tmp_path / "tables"
    path.mkdir()
    (path / "pairs.jsonl").write_text('{"query": "cat", "document": "dog", "label": 1}\n')
    found = read_collection(str(path))
    assert list(found.queries.values()) == ["cat"] and [each.text for each in found.corpus.values()] == ["dog"]


def test_lone_surrogates_are_mended(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "d1", "text": "a\ud800b"}))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "cat"}')
    assert read_collection(str(tmp_path)).corpus["d1"].text == "a\ufffdb"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "text": "cat"}')
    with pytest.raises(DataError, match="--queries"):
        read_collection(str(tmp_path / "corpus.jsonl"))
    with pytest.raises(DataError, match="nowhere"):
        read_collection(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="queries"):
        read_collection(str(tmp_path))
