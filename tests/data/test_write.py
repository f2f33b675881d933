"""Data that is written is read back the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hfcompress.data.beir import load_beir
from hfcompress.data.document import Document
from hfcompress.data.ranking import RankingData, Split
from hfcompress.data.write import write_beir
from hfcompress.errors import DataError, OutputError


@pytest.mark.parametrize("pool", [False, True])
def test_there_and_back(tmp_path: Path, word_data: RankingData, pool: bool) -> None:
    changes = {"pool": pool, "relevant_from": 2, "publish_texts": True, "license": "MIT", "language": "zh-Hant"}
    data = replace(word_data, corpus={**word_data.corpus, "d0": Document("Täße", 'a "b"\n小 c')}, **changes)
    if pool:
        judged = {query: dict.fromkeys(keys, 1) for query, keys in data.splits["test"].candidates.items()}
        data = replace(data, splits={"test": Split(judged, data.splits["test"].candidates)})
    read = load_beir(write_beir(data, tmp_path / "words"))
    assert read.fingerprint() == data.fingerprint() and read.corpus == dict(data.corpus)
    assert all(getattr(read, name) == value for name, value in changes.items())


def test_unlabelled_queries_are_kept(tmp_path: Path, word_data: RankingData) -> None:
    train = word_data.splits["train"]
    data = replace(word_data, splits={**word_data.splits, "train": Split({}, train.candidates)})
    read = load_beir(write_beir(data, tmp_path / "words"), unlabelled=True)
    assert read.splits["train"].candidates == dict(train.candidates) and not read.splits["train"].labelled


def test_nothing_is_overwritten(tmp_path: Path, word_data: RankingData) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="in use"):
        write_beir(word_data, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_ids_that_a_table_cannot_hold(tmp_path: Path, word_data: RankingData) -> None:
    data = replace(word_data, queries={**word_data.queries, "a\tb": "text"})
    with pytest.raises(DataError, match="without tabs"):
        write_beir(data, tmp_path / "words")
    assert not list(tmp_path.iterdir())


def test_meta_json(tmp_path: Path, word_data: RankingData) -> None:
    folder = write_beir(replace(word_data, notes=("made here",)), tmp_path / "words")
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    assert (meta["candidates"], meta["notes"]) == ("corpus", ["made here"])
