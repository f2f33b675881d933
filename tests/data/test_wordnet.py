"""Glosses of WordNet, read from its data files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from hfcompress.data import wordnet
from hfcompress.data.document import Document
from hfcompress.data.wordnet import PARTS, find_wordnet, read_wordnet
from hfcompress.errors import DataError

LINES = {
    "noun": "00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 | that which is perceived to have its own existence  ",
    "verb": '00001740 29 v 02 breathe 0 take_a_breath 0 000 01 + 02 00 | draw air; "breathe better"; "He breathed!"  ',
    "adj": "00001740 00 a 01 asleep(p) 0 000 | in a state of sleep  ",
    "adv": "00001740 02 r 0a a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 000 | ten words, counted in hexadecimal  ",
}


def write_wordnet(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for part, line in LINES.items():
        (folder / f"data.{part}").write_text(f"  1 This software and database is licensed | by ...  \n{line}\n")
    return folder


def test_the_folder_and_the_archive_of_nltk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordnet, "SYSTEM_FOLDER", tmp_path / "none")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "nobody")
    monkeypatch.delenv("WNSEARCHDIR", raising=False)
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "nltk"))
    folder = write_wordnet(tmp_path / "files")
    found = dict(read_wordnet(folder))
    assert found["noun-00001740"] == Document("entity", "that which is perceived to have its own existence.")
    assert found["verb-00001740"].title == "breathe, take a breath"
    assert found["verb-00001740"].text == "draw air. breathe better. He breathed!"
    assert found["adj-00001740"].title == "asleep" and len(found["adv-00001740"].title.split(", ")) == 10
    corpora = tmp_path / "nltk" / "corpora"
    corpora.mkdir(parents=True)
    with zipfile.ZipFile(corpora / "wordnet.zip", "w") as archive:
        for part in PARTS:
            archive.write(folder / f"data.{part}", f"wordnet/data.{part}")
    assert find_wordnet() == corpora / "wordnet.zip"
    assert dict(read_wordnet(corpora / "wordnet.zip")) == found
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    assert find_wordnet() == folder


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = write_wordnet(tmp_path / "files")
    (folder / "data.verb").write_text("00001740 29 v zz breathe\n")
    with pytest.raises(DataError, match=r"data\.verb, line 1"):
        list(read_wordnet(folder))
    (folder / "data.verb").unlink()
    with pytest.raises(DataError, match=r"data\.verb cannot be read"):
        list(read_wordnet(folder))
    (tmp_path / "wordnet.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"data\.noun cannot be read"):
        list(read_wordnet(tmp_path / "wordnet.zip"))
