"""Every kind of name in a recipe's `data.sets`; the Hub and ir_datasets are stood in for at their own functions."""

from __future__ import annotations

import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from conftest import write_beir
from datasets import Dataset, DatasetDict

from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError, MissingExtraError
from hfcompress.recipe import DataStep

ROWS = [{"query": f"question {number}", "document": f"answer {number}", "label": 1} for number in range(30)]


def load(name: Path | str, **changes: Any) -> RankingData:
    return load_data(DataStep(sets=[str(name)], candidates=3, **changes), progress=False)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    table = Dataset.from_list(rows)
    kind = path.name.partition(".")[2]
    path.parent.mkdir(exist_ok=True)
    if kind == "csv":
        table.to_csv(path)
    elif kind == "tsv":
        table.to_csv(path, sep="\t")
    elif kind == "parquet":
        table.to_parquet(path)
    else:
        table.to_json(path)
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_files(tmp_path: Path, kind: str) -> None:
    text = 'null, "quoted"' if kind != "tsv" else "null, 'quoted'"  # TSV has no quoting: see test_delimited_text.py
    rows = [*ROWS, {"query": "NA", "document": text, "label": 0}]
    data = load(write(tmp_path / f"questions.{kind}", rows))
    assert data.name == "questions"
    assert len(data.queries) == 31 and sorted(data.splits) == ["dev", "test", "train"]
    assert "NA" in data.queries.values() and text in {each.text for each in data.corpus.values()}


def test_a_file_whose_name_is_a_split(tmp_path: Path) -> None:
    assert {name: len(split) for name, split in load(write(tmp_path / "test.csv", ROWS)).splits.items()} == {"test": 30}


def test_a_folder_of_files(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write(folder / "train-00000-of-00002.parquet", ROWS[:10])
    write(folder / "train-00001-of-00002.parquet", ROWS[10:20])
    write(folder / "validation.parquet", ROWS[20:25])
    write(folder / "test.parquet", ROWS[25:])
    data = load(folder)
    assert (data.name, data.language) == ("set", "")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 20, "dev": 5, "test": 5}
    write(folder / "more.csv", ROWS)
    with pytest.raises(DataError, match="several kinds"):
        load(folder)


@pytest.mark.parametrize("named", [True, False])
def test_folders_by_save_to_disk(tmp_path: Path, named: bool) -> None:
    table = Dataset.from_list(ROWS)
    saved = DatasetDict(train=table, test=Dataset.from_list(ROWS[:4])) if named else table
    saved.save_to_disk(str(tmp_path / "saved"))
    data = load(tmp_path / "saved")
    assert data.name == "saved" and len(data.splits) == 3
    assert not named or len(data.splits["test"]) == 4


def test_beir_folders_are_told_apart(tmp_path: Path, word_data: RankingData) -> None:
    data = load(write_beir(tmp_path / "words", word_data))
    assert data.name == "words" and data.queries == dict(word_data.queries)


@pytest.mark.parametrize("content", [None, "text"], ids=["nothing", "other"])
def test_paths_that_hold_no_data(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "notes.txt"
    if content:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"no such data folder" if content is None else "no file with data"):
        load(path)


def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(DataError, match="cannot be read"):
        load(path)


# The Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str | None], DatasetDict]:
    """What the Hub holds, by repository and configuration."""
    sets: dict[tuple[str, str | None], DatasetDict] = {}

    def load_dataset(name: str, config: str | None = None) -> DatasetDict:
        if (name, config) not in sets:
            raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub")
        return sets[name, config]

    def names(name: str) -> list[str]:
        return [config for repository, config in sets if repository == name and config] or ["default"]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "get_dataset_config_names", names)
    return sets


def test_a_hub_set_with_splits(hub: dict[tuple[str, str | None], DatasetDict]) -> None:
    hub["org/name", None] = DatasetDict(train=Dataset.from_list(ROWS), validation=Dataset.from_list(ROWS[:3]))
    data = load("hub:org/name")
    assert data.name == "org/name"
    assert len(data.splits["dev"]) == 3 and len(data.splits["test"]) + len(data.splits["train"]) == 30


def test_a_hub_set_with_a_configuration(hub: dict[tuple[str, str | None], DatasetDict]) -> None:
    hub["org/name", "triplet"] = DatasetDict(test=Dataset.from_list([{"query": "q", "positive": "a", "negative": "b"}]))
    data = load("hub:org/name:triplet")
    assert list(data.splits) == ["test"] and len(data.corpus) == 2


def test_a_hub_set_in_beirs_layout(hub: dict[tuple[str, str | None], DatasetDict]) -> None:
    corpus = [{"_id": f"d{n}", "title": "", "text": f"answer {n}"} for n in range(4)]
    queries = [{"_id": f"q{n}", "text": f"question {n}"} for n in range(4)]
    qrels = [{"query-id": f"q{n}", "corpus-id": f"d{n}", "score": 2 - 3 * (n == 3)} for n in range(4)]
    hub["mteb/small", "corpus"] = DatasetDict(corpus=Dataset.from_list(corpus))
    hub["mteb/small", "queries"] = DatasetDict(queries=Dataset.from_list(queries))
    hub["mteb/small", "default"] = DatasetDict(test=Dataset.from_list(qrels))
    data = load("hub:mteb/small")
    assert data.splits["test"].qrels == {f"q{n}": {f"d{n}": 2 * (n < 3)} for n in range(4)}
    assert data.notes[0] == "1 judgements with a grade below 0 count as 0"


@pytest.mark.parametrize("name", ["hub:org/gone", "hub:org/gone:config"])
def test_a_hub_set_that_is_not_there(hub: dict[tuple[str, str | None], DatasetDict], name: str) -> None:
    with pytest.raises(DataError, match=r"org/gone.*cannot be read.*DatasetNotFoundError.*check the name"):
        load(name)


def test_hub_without_a_name() -> None:
    with pytest.raises(DataError, match="hub:ORG/NAME"):
        load("hub:")


# ir_datasets

Query, Doc, Qrel, Scored = (
    namedtuple("Query", "query_id text"),
    namedtuple("Doc", "doc_id text title"),
    namedtuple("Qrel", "query_id doc_id relevance iteration"),
    namedtuple("Scored", "query_id doc_id score"),
)


class Part:
    """The methods of an ir_datasets data set that are called."""

    def __init__(self, numbers: range | None, scored: bool = False) -> None:
        self.numbers, self.scored = numbers, scored

    def has_docs(self) -> bool:
        return True

    def has_qrels(self) -> bool:
        return self.numbers is not None

    def has_scoreddocs(self) -> bool:
        return self.scored

    def docs_lang(self) -> str:
        return "de"

    def docs_iter(self) -> Any:
        return (Doc(f"d{n}", f"answer {n}", "T") for n in range(40))

    def queries_iter(self) -> Any:
        return (Query(f"q{n}", f"question {n}") for n in self.numbers or ())

    def qrels_iter(self) -> Any:
        return (Qrel(f"q{n}", f"d{n}", -1 if n == 3 else 1, "0") for n in self.numbers or ())

    def scoreddocs_iter(self) -> Any:
        return (Scored(f"q{n}", f"d{m}", float(m)) for n in self.numbers or () for m in range(5))


@pytest.fixture
def irds(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = {
        "small": Part(None),
        "small/train": Part(range(20)),
        "small/valid": Part(range(20, 25)),
        "small/test": Part(range(25, 30), scored=True),
        "whole": Part(range(40)),
    }
    monkeypatch.setitem(sys.modules, "ir_datasets", SimpleNamespace(load=lambda name: sets[name]))


@pytest.mark.usefixtures("irds")
def test_irds_parts() -> None:
    data = load("irds:small")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 20, "dev": 5, "test": 5}
    assert data.splits["train"].qrels["q3"] == {"d3": 0} and data.language == "de"
    assert data.splits["test"].candidates["q25"] == ["d4", "d3", "d2"]
    assert data.corpus["d1"].content == "T answer 1"


@pytest.mark.usefixtures("irds")
def test_irds_of_one_split_and_of_none() -> None:
    assert list(load("irds:small/test").splits) == ["test"]
    assert len(load("irds:whole").splits) == 3


@pytest.mark.usefixtures("irds")
def test_irds_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"no such data set.*'nowhere'"):
        load("irds:nowhere")


def test_irds_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hfcompress\[ir-datasets\]'"):
        load("irds:small")
