"""BEIR folders: plain or gzipped, candidates given or retrieved, pool sets, and every fault of bad input."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfcompress.data.beir import load_beir
from hfcompress.data.bm25 import Bm25Index
from hfcompress.data.document import Document
from hfcompress.errors import DataError

TEXTS = {
    "d1": ("Cats", "A cat sleeps for most of the day."),
    "d2": ("", "Dogs bark at strangers in the street."),
    "d3": ("Birds", "A swallow flies south in the autumn."),
    "d4": ("", "The cat hunts birds in the garden."),
    "d5": ("Fish", "Salmon swim up the river in spring."),
}
CORPUS = [{"_id": key, "title": title, "text": text} for key, (title, text) in TEXTS.items()]
QUERIES = [
    {"_id": "q1", "text": "how long does a cat sleep"},
    {"_id": "q2", "text": "when do swallows fly south"},
    {"_id": "q3", "text": "which fish swims up a river"},
]
QRELS = {
    "train": [("q3", "d5", "1")],
    "test": [("q1", "d1", "3"), ("q1", "d4", "1"), ("q1", "d2", "0"), ("q2", "d3", "2")],
}
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SHARED_SETS = sorted(path.parent.name for path in SHARED.glob("*/meta.json"))


def lines(rows: list[Any]) -> str:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


def table(header: str, rows: list[tuple[str, ...]]) -> str:
    return "".join(f"{row}\n" for row in (header, *("\t".join(row) for row in rows)))


def put(folder: Path, name: str, text: str, zipped: bool = False) -> None:
    path = folder / (f"{name}.gz" if zipped else name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())


def write_folder(
    folder: Path,
    *,
    bm25: dict[str, list[tuple[str, ...]]] | None = None,
    meta: dict[str, Any] | None = None,
    zipped: bool = False,
) -> Path:
    """A small sound data folder; faults are made in it afterwards."""
    put(folder, "corpus.jsonl", lines(CORPUS), zipped)
    put(folder, "queries.jsonl", lines(QUERIES), zipped)
    for split, rows in QRELS.items():
        put(folder, f"qrels/{split}.tsv", table("query-id\tcorpus-id\tscore", rows), zipped)
    for split, rows in (bm25 or {}).items():
        put(folder, f"bm25/{split}.tsv", table("query-id\tcorpus-id\trank\tscore", rows), zipped)
    if meta is not None:
        put(folder, "meta.json", json.dumps(meta))
    return folder


def fault(folder: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        load_beir(folder)
    error = caught.value
    assert error.expected and error.remedy
    assert f"Expected: {error.expected}. Remedy: {error.remedy}." in str(error)
    assert error.exit_code == 2
    return error


# What is read


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
def test_texts_and_graded_qrels(tmp_path: Path, zipped: bool) -> None:
    data = load_beir(write_folder(tmp_path / "animals", zipped=zipped))
    assert data.name == "animals"
    assert data.queries == {row["_id"]: row["text"] for row in QUERIES}
    assert data.corpus == {key: Document(*value) for key, value in TEXTS.items()}
    assert data.corpus["d1"].content == "Cats A cat sleeps for most of the day."
    assert data.corpus["d2"].content == "Dogs bark at strangers in the street."
    assert sorted(data.splits) == ["test", "train"]
    assert data.splits["test"].qrels == {"q1": {"d1": 3, "d4": 1, "d2": 0}, "q2": {"d3": 2}}
    assert not data.pool and data.relevant_from == 1 and not data.publish_texts


def test_plain_and_gzipped_folders_give_the_same_data(tmp_path: Path) -> None:
    plain = load_beir(write_folder(tmp_path / "plain"))
    zipped = load_beir(write_folder(tmp_path / "zipped", zipped=True))
    assert plain.fingerprint() == zipped.fingerprint()


def test_grades_below_0_count_as_0_and_are_counted(tmp_path: Path) -> None:
    write_folder(tmp_path)
    put(tmp_path, "qrels/test.tsv", "q1\td1\t1\nq1\td2\t-1\nq2\td3\t-2\n")
    data = load_beir(tmp_path)
    assert data.splits["test"].qrels == {"q1": {"d1": 1, "d2": 0}, "q2": {"d3": 0}}
    assert data.notes == ("2 judgements with a grade below 0 count as 0",)


def test_meta_json_is_read(tmp_path: Path) -> None:
    meta = {"relevant_from": 2, "language": "de", "permissive": "CC BY 4.0", "licence": "x", "publish_texts": True}
    data = load_beir(write_folder(tmp_path, meta=meta))
    assert (data.relevant_from, data.language, data.license, data.publish_texts) == (2, "de", "CC BY 4.0", True)


def test_files_without_header_with_blank_lines_and_windows_line_ends(tmp_path: Path) -> None:
    write_folder(tmp_path)
    put(tmp_path, "qrels/test.tsv", "q1\td1\t3\r\n\r\nq2\td3\t 2 \r\n")
    put(tmp_path, "corpus.jsonl", "\r\n".join(json.dumps(row) for row in CORPUS) + "\r\n\r\n")
    data = load_beir(tmp_path)
    assert data.splits["test"].qrels == {"q1": {"d1": 3}, "q2": {"d3": 2}}
    assert len(data.corpus) == 5


def test_a_document_may_have_no_title_key_or_a_null_title(tmp_path: Path) -> None:
    write_folder(tmp_path)
    rows = [{"_id": "d1", "text": "one"}, {"_id": "d2", "title": None, "text": "two"}, *CORPUS[2:]]
    put(tmp_path, "corpus.jsonl", lines(rows))
    data = load_beir(tmp_path)
    assert (data.corpus["d1"].content, data.corpus["d2"].content) == ("one", "two")


# Candidates


def test_given_candidates_come_in_the_order_of_their_rank(tmp_path: Path) -> None:
    ranked = [("q1", "d4", "2", "0.5"), ("q1", "d2", "10", "0.1"), ("q1", "d1", "1", "9"), ("q2", "d3", "1", "1")]
    unjudged = [("q3", "d1", "1", "1")]
    data = load_beir(write_folder(tmp_path, bm25={"test": ranked + unjudged, "train": [("q3", "d5", "1", "1")]}))
    assert data.splits["test"].candidates == {"q1": ["d1", "d4", "d2"], "q2": ["d3"]}
    assert data.splits["train"].candidates == {"q3": ["d5"]}


def test_a_judged_query_without_given_candidates_has_none(tmp_path: Path) -> None:
    data = load_beir(write_folder(tmp_path, bm25={"test": [("q1", "d1", "1", "1")]}))
    assert data.splits["test"].candidates == {"q1": ["d1"], "q2": []}


def test_candidates_are_retrieved_where_none_are_given(tmp_path: Path) -> None:
    data = load_beir(write_folder(tmp_path), candidates=3)
    for split in data.splits.values():
        assert set(split.candidates) == set(split.qrels)
        assert all(len(found) == len(set(found)) == 3 for found in split.candidates.values())
    assert {query: found[0] for query, found in data.splits["test"].candidates.items()} == {"q1": "d1", "q2": "d3"}
    assert data.splits["train"].candidates["q3"][0] == "d5"


def test_retrieval_gives_the_whole_of_a_corpus_that_is_smaller(tmp_path: Path) -> None:
    data = load_beir(write_folder(tmp_path), candidates=50)
    assert sorted(data.splits["test"].candidates["q1"]) == sorted(TEXTS)


def test_unlabelled_queries_join_the_train_split(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, bm25={"train": [("q3", "d5", "1", "9"), ("q5", "d2", "1", "9")]})
    more = [{"_id": "q4", "text": "which birds fly in autumn"}, {"_id": "q5", "text": "who barks"}]
    put(folder, "queries.jsonl", lines([*QUERIES, *more]))
    assert list(load_beir(folder).splits["train"].candidates) == ["q3"]
    train = load_beir(folder, candidates=2, unlabelled=True).splits["train"]
    assert train.qrels == {"q3": {"d5": 1}}
    assert list(train.candidates) == ["q3", "q4", "q5"]
    assert train.candidates["q3"] == ["d5"] and train.candidates["q5"] == ["d2"]
    assert len(train.candidates["q4"]) == 2 and train.candidates["q4"][0] == "d3"
    (folder / "qrels" / "train.tsv").unlink()
    train = load_beir(folder, unlabelled=True).splits["train"]
    assert train.qrels == {} and list(train.candidates) == ["q3", "q4", "q5"] and not train.labelled


def test_a_folder_without_any_judgement_is_split_by_hash(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, bm25={"test": [("q3", "d5", "1", "9")]})
    more = [{"_id": f"m{number}", "text": f"question {number} about cats"} for number in range(30)]
    put(folder, "queries.jsonl", lines([*QUERIES, *more]))
    for path in (folder / "qrels").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no judgements"):
        load_beir(folder)
    data = load_beir(folder, candidates=2, unlabelled=True)
    assert sorted(data.splits) == ["dev", "test", "train"] and not any(each.labelled for each in data.splits.values())
    listed = {query: found for split in data.splits.values() for query, found in split.candidates.items()}
    assert len(listed) == 33 and listed["q3"] == ["d5"] and len(listed["q1"]) == 2
    assert load_beir(folder, 2, unlabelled=True, seed=1).splits["test"] != data.splits["test"]


@pytest.mark.parametrize(("unlabelled", "judged"), [(False, True), (True, True), (True, False)])
def test_limits_choose_before_retrieval_what_they_would_choose_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unlabelled: bool, judged: bool
) -> None:
    folder = write_folder(tmp_path, bm25={"train": [("q3", "d5", "1", "9")]})
    more = [{"_id": f"m{number}", "text": f"question {number} about cats"} for number in range(40)]
    put(folder, "queries.jsonl", lines([*QUERIES, *more]))
    put(folder, "qrels/dev.tsv", "".join(f"m{number}\td1\t1\n" for number in range(20)))
    if not judged:
        shutil.rmtree(folder / "qrels")
    limits = {"train": 6, "dev": 3, "test": 1}
    whole = load_beir(folder, 2, unlabelled).limited(limits)
    asked: list[str] = []

    retrieve = Bm25Index.retrieve

    def counted(index: Bm25Index, queries: dict[str, str], *rest: Any) -> dict[str, list[str]]:
        asked.extend(queries)
        return retrieve(index, queries, *rest)

    monkeypatch.setattr(Bm25Index, "retrieve", counted)
    data = load_beir(folder, 2, unlabelled, limits=limits)
    assert data.splits == whole.splits and data.fingerprint() == whole.fingerprint()
    chosen = {query for split in data.splits.values() for query in split.candidates}
    assert chosen >= set(asked) >= chosen - {"q3"} and len(asked) <= sum(limits.values())


def test_pool_candidates_are_the_judged_documents_in_first_stage_order(tmp_path: Path) -> None:
    ranked = [("q1", "d2", "1", "1"), ("q1", "d5", "2", "1"), ("q1", "d1", "3", "1")]
    data = load_beir(write_folder(tmp_path, bm25={"test": ranked}, meta={"candidates": "pool"}))
    assert data.pool
    # d5 is not judged, d4 was not listed; d2 is judged as not relevant and stays.
    assert data.splits["test"].candidates == {"q1": ["d2", "d1", "d4"], "q2": ["d3"]}
    assert data.splits["train"].candidates == {"q3": ["d5"]}
    assert data.first_stage == "order of the judgements"  # the train split has no list


# Bad input


def test_missing_folder(tmp_path: Path) -> None:
    error = fault(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(error)


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("name", ["corpus", "queries"])
def test_missing_file(tmp_path: Path, name: str, zipped: bool) -> None:
    write_folder(tmp_path, zipped=zipped)
    (tmp_path / (f"{name}.jsonl.gz" if zipped else f"{name}.jsonl")).unlink()
    error = fault(tmp_path)
    assert str(tmp_path) in str(error) and f"{name}.jsonl" in str(error)


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("content", ["", "\n\n"], ids=["nothing", "blank lines"])
@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_empty_file(tmp_path: Path, name: str, content: str, zipped: bool) -> None:
    write_folder(tmp_path, zipped=zipped)
    put(tmp_path, name, content, zipped)
    error = fault(tmp_path)
    assert name in str(error) and "empty" in str(error)


def test_empty_gzip_file_of_no_bytes(tmp_path: Path) -> None:
    write_folder(tmp_path, zipped=True)
    (tmp_path / "corpus.jsonl.gz").write_bytes(b"")
    assert "corpus.jsonl.gz is empty" in str(fault(tmp_path))


@pytest.mark.parametrize("content", ["", "\n\n", "query-id\tcorpus-id\tscore\n"], ids=["no", "blank", "header"])
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
def test_qrels_without_judgements_are_no_split(tmp_path: Path, content: str, zipped: bool) -> None:
    write_folder(tmp_path, zipped=zipped)
    put(tmp_path, "qrels/test.tsv", content, zipped)
    data = load_beir(tmp_path)
    assert list(data.splits) == ["train"] and "is empty: no test split" in data.notes[0]
    with pytest.raises(DataError, match=r"no 'test' split: qrels/test.tsv(.gz)? is empty.*test.tsv, with judgements"):
        data.split("test")
    put(tmp_path, "qrels/train.tsv", content, zipped)
    assert "no judgements" in str(fault(tmp_path)) and "test.tsv" in str(fault(tmp_path))


def test_no_qrels_at_all(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for path in (tmp_path / "qrels").iterdir():
        path.unlink()
    error = fault(tmp_path)
    assert str(tmp_path) in str(error) and "no judgements" in str(error) and "qrels/test.tsv" in str(error)


@pytest.mark.parametrize("content", ["", "query-id\tcorpus-id\trank\tscore\n"], ids=["nothing", "header only"])
def test_empty_candidates_file(tmp_path: Path, content: str) -> None:
    write_folder(tmp_path)
    put(tmp_path, "bm25/test.tsv", content)
    error = fault(tmp_path)
    assert "bm25/test.tsv" in str(error).replace("\\", "/") and "empty" in str(error)


def test_candidates_of_other_queries_only(tmp_path: Path) -> None:
    write_folder(tmp_path, bm25={"test": [("q3", "d1", "1", "1")]})
    assert "bm25/test.tsv" in str(fault(tmp_path)).replace("\\", "/")


BAD_LINES: list[tuple[str, str, list[str]]] = [
    ("corpus.jsonl", '{"_id": "d1", "text": "cut off', ["corpus.jsonl, line 1", "column"]),
    ("corpus.jsonl", "plain words", ["corpus.jsonl, line 1", "JSON object"]),
    ("corpus.jsonl", '["d1", "a text"]', ["corpus.jsonl, line 1", "a text"]),
    ("corpus.jsonl", '{"_id": "d1"}', ["corpus.jsonl, line 1", '{"_id": "d1"}']),
    ("corpus.jsonl", '{"_id": true, "text": "a truth for an id"}', ["corpus.jsonl, line 1", "a truth for an id"]),
    ("corpus.jsonl", '{"_id": "d1", "text": ["list"]}', ["corpus.jsonl, line 1", "list"]),
    ("corpus.jsonl", f"{json.dumps(CORPUS[1])}\n{json.dumps(CORPUS[1])}", ["corpus.jsonl, line 2", "'d2'"]),
    ("queries.jsonl", '{"_id": "q1", "text": "twice"}\n{"_id": "q1", "text": "x"}', ["line 2", "'q1'"]),
    ("queries.jsonl", '{"id": "q1", "text": "another key"}', ["queries.jsonl, line 1", "another key"]),
    (
        "qrels/test.tsv",
        "query-id\tcorpus-id\tscore\nq1\td1\t1.5",
        ["test.tsv, line 2", "'1.5'", "a grade that is an integer"],
    ),
    ("qrels/test.tsv", "q1\td1\tyes", ["test.tsv, line 1", "'yes'"]),
    ("qrels/test.tsv", "q1\td1\t", ["test.tsv, line 1", "''"]),
    ("qrels/test.tsv", "q1\td1\t1\nq1\td2\t--1", ["test.tsv, line 2", "'--1'", "a grade that is an integer"]),
    ("qrels/test.tsv", "q1\td1\t1\nq1\td1\t2", ["test.tsv, line 2", "q1 d1"]),
    ("qrels/test.tsv", "q1\td1", ["test.tsv, line 1", "three tab-separated columns"]),
    ("qrels/test.tsv", "q1 0 d1 1", ["test.tsv, line 1", "q1 0 d1 1"]),
    ("bm25/test.tsv", "q1\td1\tfirst\t1", ["test.tsv, line 1", "'first'"]),
    ("bm25/test.tsv", "q1 d1 1", ["test.tsv, line 1", "three tab-separated columns"]),
]


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize(("name", "content", "words"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_bad_line_is_named_with_its_number(
    tmp_path: Path, name: str, content: str, words: list[str], zipped: bool
) -> None:
    write_folder(tmp_path, zipped=zipped)
    put(tmp_path, name, content + "\n", zipped)
    message = str(fault(tmp_path)).replace(".gz", "")
    assert all(word in message for word in words), message


def change(name: str, pattern: str, new: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        text, count = re.subn(pattern, new, path.read_text(encoding="utf-8"))
        assert count
        path.write_text(text, encoding="utf-8")

    return apply


@pytest.mark.parametrize("given", [False, True], ids=["retrieved", "given"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change("qrels/test.tsv", "q2\t", "q9\t"), ["'test' qrels", "unknown query", "'q9'"]),
        (change("qrels/test.tsv", "\td4", "\td99"), ["'test' qrels", "unknown document", "'d99'"]),
        (change("queries.jsonl", "when do swallows fly south", " \\\\t"), ["query text", "empty", "'q2'"]),
        (change("corpus.jsonl", "Dogs bark at strangers in the street.", "  "), ["document text", "empty", "'d2'"]),
    ],
    ids=["unknown query", "unknown document", "empty query", "empty document"],
)
def test_ids_and_texts_that_do_not_resolve(
    tmp_path: Path, damage: Callable[[Path], None], words: list[str], given: bool
) -> None:
    ranked = {"test": [("q1", "d1", "1", "1")], "train": [("q3", "d1", "1", "1")]}
    damage(write_folder(tmp_path, bm25=ranked if given else None))
    message = str(fault(tmp_path))
    assert all(word in message for word in words), message


def test_all_documents_empty_is_an_error_before_retrieval(tmp_path: Path) -> None:
    write_folder(tmp_path)
    put(tmp_path, "corpus.jsonl", lines([{"_id": key, "text": ""} for key in TEXTS]))
    message = str(fault(tmp_path))
    assert "5 document text(s)" in message and "'d1'" in message


def test_given_candidates_with_an_unknown_document(tmp_path: Path) -> None:
    message = str(fault(write_folder(tmp_path, bm25={"test": [("q1", "d99", "1", "1")]})))
    assert "'test' candidates" in message and "unknown document" in message and "'d99'" in message


def test_given_candidates_with_a_repeated_document(tmp_path: Path) -> None:
    message = str(fault(write_folder(tmp_path, bm25={"test": [("q1", "d1", "1", "1"), ("q1", "d1", "2", "1")]})))
    assert "'q1'" in message and "'d1'" in message and "twice" in message


def test_gzip_cut_off(tmp_path: Path) -> None:
    write_folder(tmp_path, zipped=True)
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    assert "corpus.jsonl.gz cannot be read" in str(fault(tmp_path))


def test_gzip_name_on_a_plain_file(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "queries.jsonl").rename(tmp_path / "queries.jsonl.gz")
    assert "queries.jsonl.gz cannot be read" in str(fault(tmp_path))


def test_gzip_with_a_wrong_checksum(tmp_path: Path) -> None:
    write_folder(tmp_path, zipped=True)
    path = tmp_path / "corpus.jsonl.gz"
    content = bytearray(path.read_bytes())
    content[-8] ^= 0xFF
    path.write_bytes(bytes(content))
    assert "corpus.jsonl.gz cannot be read" in str(fault(tmp_path))


def test_gzip_with_damaged_blocks(tmp_path: Path) -> None:
    write_folder(tmp_path, zipped=True)
    path = tmp_path / "corpus.jsonl.gz"
    content = bytearray(path.read_bytes())
    content[10:30] = b"\xff" * 20
    path.write_bytes(bytes(content))
    assert "corpus.jsonl.gz cannot be read" in str(fault(tmp_path))


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_text_that_is_not_utf8(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n")
    message = str(fault(tmp_path))
    assert "cannot be read" in message and Path(name).name in message and "UTF-8" in message


def test_table_with_a_field_that_is_no_id(tmp_path: Path) -> None:
    write_folder(tmp_path)
    put(tmp_path, "qrels/test.tsv", "x" * 200_000 + "\n")
    assert "test.tsv" in str(fault(tmp_path))


def test_broken_meta(tmp_path: Path) -> None:
    write_folder(tmp_path)
    put(tmp_path, "meta.json", "{relevant_from: 1}")
    assert "meta.json is not valid JSON" in str(fault(tmp_path))


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"[]", "meta.json"), (b'{"relevant_from": "two"}', "two"), (b"\xff\xfe{}", "meta.json")],
    ids=["a list", "no number", "not UTF-8"],
)
def test_meta_of_the_wrong_kind(tmp_path: Path, content: bytes, word: str) -> None:
    write_folder(tmp_path)
    (tmp_path / "meta.json").write_bytes(content)
    assert word in str(fault(tmp_path))


# Real sets


@pytest.mark.skipif(not SHARED_SETS, reason="there is no folder ../shared/data beside the repository")
@pytest.mark.parametrize("name", SHARED_SETS)
def test_shared_sets_load_with_the_counts_of_their_meta(name: str) -> None:
    meta = json.loads((SHARED / name / "meta.json").read_text(encoding="utf-8"))
    data = load_beir(SHARED / name)
    assert data.name == name
    assert data.pool == (meta["candidates"] == "pool")
    assert data.relevant_from == meta["relevant_from"]
    assert len(data.corpus) == meta["documents"]
    assert set(data.splits) == set(meta["splits"])
    for split, counts in meta["splits"].items():
        chosen = data.split(split)
        grades = [grade for judged in chosen.qrels.values() for grade in judged.values()]
        assert len(chosen) == len(chosen.qrels) == counts["queries"]
        assert len(grades) == counts["judgements"]
        assert sum(grade >= data.relevant_from for grade in grades) == counts["relevant"]
        assert all(chosen.candidates.values())
        if data.pool:
            assert all(sorted(found) == sorted(chosen.qrels[query]) for query, found in chosen.candidates.items())
