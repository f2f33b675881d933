"""Roles of columns: a name keeps its role whatever the type of its values, which are read as a person writes them."""

from __future__ import annotations

import json
import logging
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, IterableDataset, Value
from reader_samples import SAMPLES, Texts, readers

from hfcompress.data.columns import STREAMED_ROWS, read_columns
from hfcompress.data.draft import ALL, Draft
from hfcompress.data.layouts import detect_layout
from hfcompress.data.tables import read_files
from hfcompress.errors import DataError

READ = [
    (12345, "12345"),
    (-7, "-7"),
    (0, "0"),
    (12345.0, "12345"),
    (0.1, "0.1"),
    (1e-7, "1e-07"),
    (True, "True"),
    (False, "False"),
    (Decimal("19.90"), "19.90"),
    (date(2024, 5, 3), "2024-05-03"),
    (datetime(2024, 5, 3), "2024-05-03"),
    (datetime(2024, 5, 3, 12, 30, tzinfo=UTC), "2024-05-03 12:30:00+00:00"),
    (time(12, 30), "12:30:00"),
    (np.int64(3), "3"),
    (np.float64(3.0), "3"),
    (np.bool_(True), "True"),
]
REFUSED = [b"bytes", {"text": "inside"}, [["nested"]], timedelta(1), float("inf"), object(), pd.NA]
MISSING = [None, float("nan"), pd.NaT, "", " "]
ROLES = ("query", "positive", "negative", "document", "title", "docs")


def row(role: str, value: Any) -> dict[str, Any]:
    """A row of text with a value in one role."""
    rows: list[dict[str, Any]] = [
        {"query": "q", "positive": "p", "negative": "n"},
        {"query": "q", "title": "t", "document": "p", "label": 1},
        {"query": "q", "docs": ["p", "n"], "labels": [1, 0]},
    ]
    found = next(each for each in rows if role in each)
    return {**found, role: [value, "n"] if role == "docs" else value}


def judged(draft: Draft, split: str = ALL) -> dict[str, dict[str, int]]:
    return {
        draft.queries[query]: {draft.corpus[document].content: grade for document, grade in grades.items()}
        for query, grades in draft.qrels[split].items()
    }


def expected(role: str, text: str) -> dict[str, dict[str, int]]:
    texts = {"query": "q", "positive": "p", "negative": "n", "document": "p", "title": "t", "docs": "p"} | {role: text}
    if role in ("query", "positive", "negative"):
        return {texts["query"]: {texts["positive"]: 1, texts["negative"]: 0}}
    if role == "docs":
        return {"q": {text: 1, "n": 0}}
    return {"q": {f"{texts['title']} {texts['document']}": 1}}


# Every reader


def test_every_reader_has_a_sample() -> None:
    known = {"read_columns", "read_files", "read_saved", "read_hub", "read_beir", "read_trec", "read_ir_datasets"}
    assert {sample.reader for sample in SAMPLES.values()} == readers() == known


@pytest.mark.parametrize("name", SAMPLES)
def test_numbers_are_texts_in_every_reader(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = SAMPLES[name].read(Texts(12345, 678, "a text", 9), tmp_path, monkeypatch)
    ((query, grades),) = draft.qrels["test"].items()
    relevant = [draft.corpus[document].text for document, grade in grades.items() if grade]
    assert draft.queries[query] == "12345" and relevant == ["678"]
    assert "a text" in {document.text for document in draft.corpus.values()}


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.typed])
def test_whole_floats_and_booleans_in_every_reader(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = SAMPLES[name].read(Texts(123.0, True, "a text", 9), tmp_path, monkeypatch)
    assert "123" in draft.queries.values()
    assert {document.text for document in draft.corpus.values()} == {"True", "a text"}


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.typed])
@pytest.mark.parametrize("field", ["query", "document"])
def test_lists_in_place_of_texts_are_refused(
    name: str, field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = [["nested"]] if field == "document" else ["a list"]
    if name == "ir_datasets":
        pytest.skip("its records are typed")
    with pytest.raises(DataError, match=r"nested|a list"):
        SAMPLES[name].read(Texts(**{field: value}), tmp_path, monkeypatch)


# Every type in every role


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("value", "text"), READ, ids=repr)
def test_types_that_are_read(role: str, value: Any, text: str) -> None:
    rows = [row(role, value)]
    assert judged(read_columns("x", {"all": rows})) == expected(role, text)
    try:
        table = Dataset.from_list(rows)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return  # a list of texts and numbers, which a column cannot hold
    assert judged(read_columns("x", {"all": table})) == expected(role, text)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_types_that_are_refused_with_column_and_row(role: str, value: Any) -> None:
    if role == "title" and isinstance(value, dict):
        return  # an object called title is ignored
    with pytest.raises(DataError, match=rf"Row 2 of .*column '{role}'.*a boolean or a date"):
        read_columns("x", {"all": [row(role, "sound"), row(role, value)]})


@pytest.mark.parametrize("role", ["query", "positive", "document", "docs"])
@pytest.mark.parametrize("value", MISSING, ids=repr)
def test_missing_values_are_refused_with_column_and_row(role: str, value: Any) -> None:
    with pytest.raises(DataError, match=rf"Row 2 of .*column '{role}'"):
        read_columns("x", {"all": [row(role, "sound"), row(role, value)]})


@pytest.mark.parametrize("value", MISSING, ids=repr)
def test_missing_titles_and_negatives_are_none(value: Any) -> None:
    assert judged(read_columns("x", {"all": [row("negative", value)]})) == {"q": {"p": 1}}
    titled = read_columns("x", {"all": [row("title", value)]})
    assert [document.text for document in titled.corpus.values()] == ["p"]


@pytest.mark.parametrize("value", [1, 1.0, True, "1", " 1.0 ", Decimal(1), np.int64(1), np.float32(1)], ids=repr)
def test_labels_of_every_type(value: Any) -> None:
    assert judged(read_columns("x", {"all": [{"query": "q", "document": "d", "label": value}]})) == {"q": {"d": 1}}
    rows = [{"query": "q", "docs": ["d", "e"], "labels": [value, 0]}]
    assert judged(read_columns("x", {"all": rows})) == {"q": {"d": 1, "e": 0}}


@pytest.mark.parametrize("value", [None, "", "relevant", "nan", float("nan"), float("inf"), [1], {}, b"1"], ids=repr)
def test_labels_that_are_no_numbers_are_refused(value: Any) -> None:
    rows = [{"query": "q", "document": "d", "label": each} for each in (1, value)]
    with pytest.raises(DataError, match=r"Row 2 of .*column 'label'.*number"):
        read_columns("x", {"all": rows})


def test_a_text_in_place_of_a_list_of_documents_is_refused() -> None:
    rows = [{"query": "q", "docs": docs, "labels": labels} for docs, labels in ((["d"], [1]), ("abc", [1, 0, 0]))]
    with pytest.raises(DataError, match=r"Row 2 of .*column 'docs'.*'abc'.*a list of documents"):
        read_columns("x", {"all": rows})


# Files


PARTS = [(number, f"part {number}", f"another part {number}") for number in (1001, 1002, 1003, 1004)]


def write(path: Path, rows: list[tuple[Any, ...]], names: tuple[str, ...] = ("query", "positive", "negative")) -> Path:
    frame = pd.DataFrame(rows, columns=list(names))
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".tsv":
        frame.to_csv(path, index=False, sep="\t")
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps([dict(zip(names, each, strict=True)) for each in rows]), encoding="utf-8")
    else:
        lines = (json.dumps(dict(zip(names, each, strict=True))) for each in rows)
        path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
@pytest.mark.parametrize("place", [0, 1, 2], ids=["query", "positive", "negative"])
def test_a_column_of_numbers_keeps_its_role(kind: str, place: int, tmp_path: Path) -> None:
    rows = [tuple(number if index == place else each for index, each in enumerate((f"q{number}", *texts)))
            for number, *texts in PARTS]  # fmt: skip
    draft = read_files(write(tmp_path / f"test.{kind}", rows))
    assert judged(draft, "test") == {str(q): {str(p): 1, str(n): 0} for q, p, n in rows}


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
@pytest.mark.parametrize("at", [0, 20, 39])
def test_one_number_in_a_column_of_texts(kind: str, at: int, tmp_path: Path) -> None:
    rows: list[tuple[Any, ...]] = [(f"question {n}", f"answer {n}", f"other {n}") for n in range(40)]
    rows[at] = (4711, *rows[at][1:])
    found = judged(read_files(write(tmp_path / f"test.{kind}", rows)), "test")
    assert len(found) == 40 and found["4711"] == {f"answer {at}": 1, f"other {at}": 0}


def test_whole_numbers_beside_a_missing_value(tmp_path: Path) -> None:
    rows = [(number, text, other if number > 1002 else None) for number, text, other in PARTS]
    numbers = pd.DataFrame(rows, columns=["query", "positive", "negative"])
    numbers["negative"] = [None, None, 31, 41]
    assert numbers["negative"].dtype == float
    numbers.to_parquet(tmp_path / "test.parquet")
    found = judged(read_files(tmp_path / "test.parquet"), "test")
    assert found["1003"] == {"part 1003": 1, "31": 0} and found["1001"] == {"part 1001": 1}
    found = judged(read_columns("x", {"all": Dataset.from_pandas(numbers)}))
    assert found["1004"] == {"part 1004": 1, "41": 0}


@pytest.mark.parametrize(
    "text", ["007", "1e5", "+3", "1.50", "12345678901234567890", "NA", "None", "true", "2024-05-03"]
)
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_values_keep_the_text_of_the_file(kind: str, text: str, tmp_path: Path) -> None:
    found = judged(read_files(write(tmp_path / f"test.{kind}", [(text, text + "a", "b")])), "test")
    assert found == {text: {text + "a": 1, "b": 0}}


def test_a_bad_row_of_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text('query,positive,negative\nq,"two\nlines",n\n\nq2,,n\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"Row 2 of .*test\.csv, line 5\), column 'positive'"):
        read_files(path)


# Names


@pytest.mark.parametrize(
    ("example", "query", "documents"),
    [
        ({"question": 1, "answer": 2}, "question", ("answer",)),
        ({"query": 1, "passage": True, "source": 3}, "query", ("passage",)),
        ({"question": "is it", "passage": "it is", "answer": True}, "question", ("passage",)),
        ({"Query": 1, "Positive": 2, "Negative_1": 3}, "Query", ("Positive",)),
        ({"anchor": 1, "pos": [2], "neg": [3]}, "anchor", ("pos",)),
        ({"query": 1, "docs": [2, 3], "labels": [1, 0]}, "query", ("docs",)),
        ({"sentence1": 1, "sentence2": 2, "score": "0.5"}, "sentence1", ("sentence2",)),
        ({"claim": "c", "positive": "p", "year": 2020}, "claim", ("positive",)),
    ],
)
def test_named_columns_keep_their_roles(example: dict[str, Any], query: str, documents: tuple[str, ...]) -> None:
    layout = detect_layout(list(example), example)
    assert (layout.query, layout.documents) == (query, documents)


@pytest.mark.parametrize(
    "example",
    [
        {"query": "q", "document": {"text": "inside"}, "source": "web"},
        {"query": "q", "document": 1, "source": "web"},
        {"query": "q", "document": "d", "keywords": ["a", "b"]},
        {"query": "q", "negative": "n"},
        {"positive": "p", "negative": "n"},
        {"claim": "c", "evidence": "e", "positive": "p"},
        {"topic": 7, "positive": "p"},
    ],
    ids=lambda example: "+".join(example),
)
def test_no_role_is_taken_from_what_is_left(example: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"Row 1|fit no layout"):
        read_columns("x", {"all": [example]})


def test_roles_by_position_are_logged_and_noted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="hfcompress")
    draft = read_columns("x", {"all": [{"premise": "a", "hypothesis": "b", "label": 1}]})
    assert "by position, as the name is no role: 'premise', 'hypothesis'" in draft.notes[0]
    assert len(caplog.records) == 1 and "'premise'" in caplog.text and "Rename the columns" in caplog.text
    caplog.clear()
    draft = read_columns("x", {"all": [{"query": "a", "positive": "b", "source": "web", "views": 3}]})
    assert not caplog.records and "not read: 'source'" in draft.notes[0] and "position" not in draft.notes[0]


def test_numbers_in_unnamed_columns_are_no_texts_even_in_a_csv(tmp_path: Path) -> None:
    names = ("stars", "review", "reply", "checked")
    path = write(tmp_path / "test.csv", [(4.5, "a", "b", True), (3, "c", "d", False)], names)
    assert judged(read_files(path), "test") == {"a": {"b": 1}, "c": {"d": 1}}


# Data sets in memory


def test_classes_and_short_floats_are_read_by_their_names_and_digits() -> None:
    features = Features(
        {"query": ClassLabel(names=["red", "blue"]), "document": Value("float32"), "label": Value("int8")}
    )
    table = Dataset.from_dict({"query": [1, 0], "document": [0.1, 2.0], "label": [1, 0]}, features=features)
    assert judged(read_columns("x", {"all": table})) == {"blue": {"0.1": 1}, "red": {"2": 0}}


@pytest.mark.parametrize("form", ["numpy", "pandas", "torch", "arrow"])
def test_the_format_of_a_data_set_changes_nothing(form: str) -> None:
    table = Dataset.from_list([{"query": 5, "docs": ["a", "b"], "labels": [1, 0]}])
    assert judged(read_columns("x", {"all": table.with_format(form)})) == {"5": {"a": 1, "b": 0}}
    hidden = table.with_format("numpy", columns=["docs"])
    assert judged(read_columns("x", {"all": hidden})) == {"5": {"a": 1, "b": 0}}


def test_one_table_needs_no_name() -> None:
    table = Dataset.from_list([{"query": 5, "positive": "a"}])
    assert judged(read_columns("x", table)) == {"5": {"a": 1}}


def endless() -> Any:
    number = 0
    while True:
        number += 1
        yield {"query": number, "positive": f"answer {number}"}


@pytest.mark.parametrize("known", [True, False])
def test_streams_are_read_up_to_a_bound(known: bool) -> None:
    features = Features({"query": Value("int64"), "positive": Value("string")}) if known else None
    stream = IterableDataset.from_generator(endless, features=features)
    for tables in (stream, {"train": stream}):
        draft = read_columns("x", tables, streamed_rows=20)
        assert sorted(draft.queries.values(), key=int) == [str(number) for number in range(1, 21)]
        assert any(note.startswith("the first 20 rows of the stream") for note in draft.notes)
    short = read_columns("x", stream.take(20), streamed_rows=20)
    assert len(short.queries) == 20 and not any("stream" in note for note in short.notes)
    assert STREAMED_ROWS >= 100_000
