"""One bad text does not refuse or break a whole set: empty, missing and broken texts in every reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reader_samples import SAMPLES, Texts, built_in, readers
from transformers import BertTokenizerFast

from hfcompress.data import load
from hfcompress.data.beir import load_beir
from hfcompress.data.document import Document
from hfcompress.data.draft import Draft, finish
from hfcompress.data.ranking import RankingData, Split
from hfcompress.data.statistics import dataset_statistics
from hfcompress.data.trec import read_trec
from hfcompress.data.values import mended
from hfcompress.data.write import write_beir
from hfcompress.errors import DataError
from hfcompress.recipe import DataStep

BROKEN = "a cat \ud83d sleeps"
MENDED = "a cat \ufffd sleeps"
MISSING = [None, float("nan"), "", " "]
WITH_UNJUDGED = [name for name, sample in SAMPLES.items() if not sample.judged]
CAN_BREAK = [name for name, sample in SAMPLES.items() if sample.surrogates]


def finished(draft: Draft, **changes: Any) -> RankingData:
    return finish(draft, **{"limits": {}, "candidates": 5, "seed": 0, **changes})


def usable(data: RankingData, tokenizer: BertTokenizerFast, folder: Path) -> None:
    """Whatever reads texts later can do so."""
    assert data.fingerprint() and dataset_statistics(data, tokenizer, 32)
    for split in data.splits.values():
        for query, listed in split.candidates.items():
            pairs = data.pairs(query, listed)
            tokenizer([first for first, _ in pairs], [second for _, second in pairs])
    assert load_beir(write_beir(data, folder)).fingerprint() == data.fingerprint()


def test_every_reader_is_here() -> None:
    assert {sample.reader for sample in SAMPLES.values()} == readers()
    assert {function.__name__ for function in load.BUILT_IN.values()} == set(built_in())
    assert {SAMPLES[name].reader for name in WITH_UNJUDGED} == {
        "read_beir", "read_hub", "read_ir_datasets", "read_trec",
    }  # fmt: skip


# Lone surrogates


@pytest.mark.parametrize("field", ["query", "document", "other"])
@pytest.mark.parametrize("name", CAN_BREAK)
def test_lone_surrogates_are_replaced_and_counted(
    name: str, field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: BertTokenizerFast
) -> None:
    data = finished(SAMPLES[name].read(Texts(**{field: BROKEN}), tmp_path, monkeypatch))
    assert MENDED in (set(data.queries.values()) if field == "query" else {each.text for each in data.corpus.values()})
    (note,) = [note for note in data.notes if "surrogate" in note]
    assert note.startswith("1 texts had a lone surrogate, replaced by U+FFFD: ")
    usable(data, tokenizer, tmp_path / "written")


@pytest.mark.parametrize("name", load.BUILT_IN)
def test_lone_surrogates_in_a_built_in_set(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: BertTokenizerFast
) -> None:
    made = RankingData(
        name, {"q": BROKEN}, {"d": Document(BROKEN, "x")}, {"test": Split({"q": {"d": 1}}, {"q": ["d"]})}, notes=("a",)
    )
    monkeypatch.setitem(load.BUILT_IN, name, lambda limits, progress: made)
    data = load.load_data(DataStep(sets=[name]), progress=False)
    assert data.queries == {"q": MENDED} and data.corpus == {"d": Document(MENDED, "x")}
    assert data.notes == ("a", "2 texts had a lone surrogate, replaced by U+FFFD: q, d")
    usable(data, tokenizer, tmp_path / "written")


@pytest.mark.parametrize(
    ("text", "found"),
    [("\ud83dx", "\ufffdx"), ("\ude00", "\ufffd"), ("x\ud83d", "x\ufffd"), ("\ud83d" + "\ude00", "\U0001f600"),
     ("\ude00\ud83d", "\ufffd\ufffd"), ("a\U0001f600b", "a\U0001f600b")],
)  # fmt: skip
def test_halves_and_pairs(text: str, found: str) -> None:
    assert mended(text) == found


@pytest.mark.parametrize("kind", ["query", "document"])
def test_ids_with_a_surrogate_are_refused(kind: str) -> None:
    query, document = ("q\ud83d", "d") if kind == "query" else ("q", "d\ud83d")
    draft = Draft("x", {query: "a"}, {document: Document("", "b")}, {"test": {query: {document: 1}}})
    with pytest.raises(DataError, match=r"1 id\(s\) of 'x' have a lone surrogate.*\\ud83d"):
        finished(draft)


# Missing and empty texts


@pytest.mark.parametrize("value", MISSING, ids=repr)
@pytest.mark.parametrize("name", WITH_UNJUDGED)
def test_unjudged_texts_that_are_missing_are_left_out_and_counted(
    name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: BertTokenizerFast
) -> None:
    if value != value and not SAMPLES[name].typed:
        pytest.skip("there is no NaN in a text")
    data = finished(SAMPLES[name].read(Texts(other=value, unused=value), tmp_path, monkeypatch))
    assert data.queries == {"q1": Texts.query} and data.corpus == {"d1": Document("", Texts.document)}
    assert "1 queries without text and without judgements left out" in data.notes
    assert "1 documents without text and without judgements left out" in data.notes
    usable(data, tokenizer, tmp_path / "written")


@pytest.mark.parametrize("value", MISSING, ids=repr)
@pytest.mark.parametrize("field", ["query", "document"])
@pytest.mark.parametrize("name", SAMPLES)
def test_judged_texts_that_are_missing_are_refused_by_id_or_row(
    name: str, field: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = SAMPLES[name]
    if value != value and not sample.typed:
        pytest.skip("there is no NaN in a text")
    column = "positive" if field == "document" else "query"
    where = rf"Row 1 of .*column '{column}'" if sample.judged else rf"{field} text.*are empty.*'{field[0]}1'"
    with pytest.raises(DataError, match=where):
        finished(sample.read(Texts(**{field: value}), tmp_path, monkeypatch))


@pytest.mark.parametrize("value", MISSING, ids=repr)
@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.judged])
def test_missing_negatives_of_a_row_are_none(
    name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value != value and not SAMPLES[name].typed:
        pytest.skip("there is no NaN in a text")
    draft = SAMPLES[name].read(Texts(other=value), tmp_path, monkeypatch)
    assert [document.text for document in draft.corpus.values()] == [Texts.document]


def draft(**changes: Any) -> Draft:
    return Draft(
        "x",
        queries={"q": "a", "empty": ""},
        corpus={"d": Document("", "b"), "empty": Document(" ", ""), "e": Document("c", "")},
        qrels={"test": {"q": {"d": 1}}},
        **changes,
    )


def test_empty_documents_leave_the_candidates() -> None:
    data = finished(draft(candidates={"test": {"q": ["empty", "d", "e"], "empty": ["d"]}}))
    assert data.splits["test"].candidates == {"q": ["d", "e"]} and set(data.corpus) == {"d", "e"}


def test_empty_queries_are_not_used_without_judgements() -> None:
    data = finished(draft(), unlabelled=True)
    assert {query for split in data.splits.values() for query in split.candidates} == {"q"}


# Splits without judgements


@pytest.mark.parametrize("content", ["query-id\tcorpus-id\tscore\n", ""], ids=["header", "nothing"])
def test_qrels_without_judgements_do_not_refuse_the_set(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SAMPLES["BEIR"].read(Texts(), tmp_path, monkeypatch)
    (tmp_path / "qrels" / "dev.tsv").write_text(content, encoding="utf-8")
    data = load_beir(tmp_path)
    assert list(data.splits) == ["test"] and data.notes == ("qrels/dev.tsv is empty: no dev split",)
    with pytest.raises(DataError, match=r"no 'dev' split: qrels/dev.tsv is empty"):
        data.split("dev")


def test_an_empty_qrels_file_of_trec_is_no_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SAMPLES["TREC TSV"].read(Texts(), tmp_path, monkeypatch)
    (tmp_path / "qrels.dev.txt").write_text("", encoding="utf-8")
    data = finished(read_trec(tmp_path))
    assert list(data.splits) == ["test"] and data.notes == ("qrels.dev.txt is empty: no dev split",)


def test_a_table_without_rows_is_no_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SAMPLES["jsonl"].read(Texts(), tmp_path, monkeypatch)
    (tmp_path / "dev.jsonl").write_text("\n", encoding="utf-8")
    data = load.load_data(DataStep(sets=[str(tmp_path)]), progress=False)
    assert list(data.splits) == ["test"]
