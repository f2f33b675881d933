"""A small set in the format of every reader of data: one judged pair of texts, and further ones."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from datasets import Dataset, DatasetDict

import hfcompress.data
from hfcompress.data.beir import read_beir
from hfcompress.data.columns import read_columns
from hfcompress.data.draft import Draft
from hfcompress.data.ir_datasets import read_ir_datasets
from hfcompress.data.tables import read_files, read_hub, read_saved
from hfcompress.data.trec import read_trec


@dataclass
class Texts:
    """Values in place of texts: a query with its relevant document, another document, and a query without judgement."""

    query: Any = "how long does a cat sleep"
    document: Any = "Cats sleep for most of the day."
    other: Any = "Dogs bark at strangers."
    unused: Any = "an unjudged question"

    @property
    def row(self) -> dict[str, Any]:
        return {"query": self.query, "positive": self.document, "negative": self.other}

    @property
    def queries(self) -> dict[str, Any]:
        return {"q1": self.query, "q2": self.unused}

    @property
    def documents(self) -> dict[str, Any]:
        return {"d1": self.document, "d2": self.other}


@dataclass(frozen=True)
class Sample:
    """A reader with one of its formats.

    Attributes:
        reader: Name of the reader's function.
        read: Writes texts into a folder in the format, and reads them.
        judged: Whether each text of the format is in a judgement, as in rows of a table.
        typed: Whether the format has numbers; others have text only.
        surrogates: Whether the format can hold a lone surrogate.
    """

    reader: str
    read: Callable[[Texts, Path, pytest.MonkeyPatch], Draft]
    judged: bool = False
    typed: bool = True
    surrogates: bool = False


BY_NAME = {"load_beir", "load_data", "load_built_in", "load_also"}


def readers() -> set[str]:
    """Names of the functions in hfcompress.data that return a draft."""
    found = set()
    for info in pkgutil.iter_modules(hfcompress.data.__path__, "hfcompress.data."):
        module = importlib.import_module(info.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == info.name and function.__annotations__.get("return") == "Draft":
                found.add(name)
    return {name for name in found if not name.startswith("_")}


def built_in() -> Iterator[str]:
    """Names of the functions that make ranking data without a draft, apart from those that call a reader by name."""
    for info in pkgutil.iter_modules(hfcompress.data.__path__, "hfcompress.data."):
        for name, function in inspect.getmembers(importlib.import_module(info.name), inspect.isfunction):
            if function.__module__ == info.name and name.startswith("load_") and name not in BY_NAME:
                yield name


def _memory(wrap: Callable[[list[dict[str, Any]]], Any], texts: Texts, *_: Any) -> Draft:
    return read_columns("sample", {"test": wrap([texts.row])})


def _file(kind: str, texts: Texts, folder: Path, _: pytest.MonkeyPatch) -> Draft:
    path, row = folder / f"test.{kind}", texts.row
    if kind == "parquet":
        Dataset.from_list([row]).to_parquet(path)
    elif kind in ("csv", "tsv"):
        mark = "," if kind == "csv" else "\t"
        lines = (mark.join("" if each is None else str(each) for each in line) for line in (row, row.values()))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        path.write_text(json.dumps([row] if kind == "json" else row), encoding="utf-8")
    return read_files(path)


def _saved(texts: Texts, folder: Path, _: pytest.MonkeyPatch) -> Draft:
    DatasetDict(test=Dataset.from_list([texts.row])).save_to_disk(str(folder / "saved"))
    return read_saved(folder / "saved")


def _hub(beir: bool, texts: Texts, _: Path, monkeypatch: pytest.MonkeyPatch) -> Draft:
    qrels = [{"query-id": "q1", "corpus-id": "d1", "score": 1}]
    sets: dict[str | None, list[dict[str, Any]]] = {None: [texts.row]}
    if beir:
        sets = {
            "queries": [{"_id": key, "text": text} for key, text in texts.queries.items()],
            "corpus": [{"_id": key, "text": text} for key, text in texts.documents.items()],
            "qrels": qrels,
        }
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda _: [name for name in sets if name] or ["default"])
    monkeypatch.setattr(datasets, "load_dataset", lambda _, name=None: {"test": sets[name]})
    return read_hub("hub:org/sample")


def _lines(rows: dict[str, Any], key: str = "_id") -> str:
    return "".join(json.dumps({key: each, "text": text}) + "\n" for each, text in rows.items())


def _beir(texts: Texts, folder: Path, _: pytest.MonkeyPatch) -> Draft:
    (folder / "qrels").mkdir()
    (folder / "queries.jsonl").write_text(_lines(texts.queries), encoding="utf-8")
    (folder / "corpus.jsonl").write_text(_lines(texts.documents), encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n", encoding="utf-8")
    return read_beir(folder)


def _trec(kind: str, texts: Texts, folder: Path, _: pytest.MonkeyPatch) -> Draft:
    for name, rows in (("topics", texts.queries), ("docs", texts.documents)):
        written = {key: "" if text is None else text for key, text in rows.items()}
        content = {
            "jsonl": _lines(rows, "id"),
            "tsv": "".join(f"{key}\t{text}\n" for key, text in written.items()),
            "topics": "".join(f"<top><num>{key}</num><title>{text}</title></top>" for key, text in written.items()),
            "docs": "".join(f"<DOC><DOCNO>{key}</DOCNO><TEXT>{text}</TEXT></DOC>" for key, text in written.items()),
        }[name if kind == "trec" else kind]
        (folder / f"{name}.{kind}").write_text(content, encoding="utf-8")
    (folder / "qrels.test.txt").write_text("q1 0 d1 1\n", encoding="utf-8")
    return read_trec(folder)


def _irds(texts: Texts, _: Path, monkeypatch: pytest.MonkeyPatch) -> Draft:
    query, doc = namedtuple("Query", "query_id text"), namedtuple("Doc", "doc_id text")
    qrel = namedtuple("Qrel", "query_id doc_id relevance")
    part = SimpleNamespace(
        has_docs=lambda: True,
        has_qrels=lambda: True,
        has_scoreddocs=lambda: False,
        docs_iter=lambda: [doc(*each) for each in texts.documents.items()],
        queries_iter=lambda: [query(*each) for each in texts.queries.items()],
        qrels_iter=lambda: [qrel("q1", "d1", 1)],
    )
    monkeypatch.setitem(sys.modules, "ir_datasets", SimpleNamespace(load=lambda _: part))
    return read_ir_datasets("irds:sample/test")


SAMPLES = {
    "list": Sample("read_columns", partial(_memory, list), judged=True, surrogates=True),
    "Dataset": Sample("read_columns", partial(_memory, Dataset.from_list), judged=True),
    "IterableDataset": Sample(
        "read_columns", partial(_memory, lambda rows: Dataset.from_list(rows).to_iterable_dataset()), judged=True
    ),
    **{
        kind: Sample("read_files", partial(_file, kind), True, kind not in ("csv", "tsv"), kind in ("json", "jsonl"))
        for kind in ("csv", "tsv", "json", "jsonl", "parquet")
    },
    "save_to_disk": Sample("read_saved", _saved, judged=True),
    "hub": Sample("read_hub", partial(_hub, False), judged=True, surrogates=True),
    "hub in BEIR's layout": Sample("read_hub", partial(_hub, True), surrogates=True),
    "BEIR": Sample("read_beir", _beir, surrogates=True),
    "TREC JSON lines": Sample("read_trec", partial(_trec, "jsonl"), surrogates=True),
    "TREC TSV": Sample("read_trec", partial(_trec, "tsv"), typed=False),
    "TREC tags": Sample("read_trec", partial(_trec, "trec"), typed=False),
    "ir_datasets": Sample("read_ir_datasets", _irds, surrogates=True),
}
