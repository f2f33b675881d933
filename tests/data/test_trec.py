"""Folders with TREC's files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from hfcompress.data.document import Document
from hfcompress.data.load import load_data
from hfcompress.data.trec import is_trec, read_trec
from hfcompress.errors import DataError
from hfcompress.recipe import DataStep

TOPICS = """<top>
<num> Number: 301
<title> Topic: how long does
 a cat sleep
<desc> Description:
Not to be read.
</top>
<top><num>302</num><title>when do swallows fly south</title></top>
"""
DOCS = """<DOC>
<DOCNO> d1 </DOCNO>
<HEADLINE>Cats</HEADLINE>
<TEXT>
A cat sleeps
for most of the day.
</TEXT>
</DOC>
<DOC><DOCNO>d2</DOCNO><TEXT>Swallows leave in autumn.</TEXT></DOC>
"""
QRELS = "301 0 d1 2\n301 0 d2 -2\n302 0 d2 1\n302 0 gone 1\n999 0 d1 1\n"
RUN = "301 Q0 d2 1 9.5 tag\n301 Q0 d1 2 11 tag\n302 Q0 d2 1 3 tag\n"


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(
        tmp_path / "robust", topics__txt=TOPICS, docs__trec__gz=DOCS, qrels__test__txt=QRELS, run__bm25__txt=RUN
    )


def test_tagged_files(folder: Path) -> None:
    draft = read_trec(folder)
    assert draft.queries == {"301": "how long does a cat sleep", "302": "when do swallows fly south"}
    assert draft.corpus == {
        "d1": Document("Cats", "A cat sleeps for most of the day."),
        "d2": Document("", "Swallows leave in autumn."),
    }
    assert draft.qrels == {"test": {"301": {"d1": 2, "d2": 0}, "302": {"d2": 1}}}
    assert draft.notes == [
        "2 judgements left out, whose topic or document is not in the files",
        "1 judgements with a grade below 0 count as 0",
    ]


def test_a_run_gives_the_candidates_by_score(folder: Path) -> None:
    data = load_data(DataStep(sets=[str(folder)]), progress=False)
    assert data.name == "robust" and data.first_stage == "given order"
    assert data.splits["test"].candidates == {"301": ["d1", "d2"], "302": ["d2"]}
    assert data.splits["test"].qrels == {"301": {"d1": 2, "d2": 0}, "302": {"d2": 1}}
    cut = load_data(DataStep(sets=[str(folder)], candidates=1), progress=False)
    assert cut.splits["test"].candidates == {"301": ["d1"], "302": ["d2"]} and cut.first_stage == "given order"
    (folder / "run.bm25.txt").unlink()
    data = load_data(DataStep(sets=[str(folder)], candidates=1), progress=False)
    assert data.splits["test"].candidates == {"301": ["d1"], "302": ["d2"]}
    assert data.first_stage == "BM25"


def test_tables_and_json_lines(tmp_path: Path) -> None:
    topics = "".join(f"{number}\tquestion {number}\n" for number in range(40))
    docs = "".join(json.dumps({"id": f"d{number}", "contents": f"answer {number}"}) + "\n" for number in range(40))
    qrels = "".join(f"{number} 0 d{number} 1\n" for number in range(40))
    folder = write(tmp_path / "small", queries__tsv=topics, collection__jsonl=docs, qrels__txt=qrels)
    assert is_trec(folder)
    data = load_data(DataStep(sets=[str(folder)], split_seed=3), progress=False)
    assert sum(len(split) for split in data.splits.values()) == 40 and len(data.splits) == 3
    assert data.corpus["d7"] == Document("", "answer 7")
    assert "cut from the other queries" in data.notes[0] and "seed 3" in data.notes[0]
    other = load_data(DataStep(sets=[str(folder)], split_seed=4), progress=False)
    assert set(other.splits["test"].candidates) != set(data.splits["test"].candidates)


def test_documents_with_a_title_in_a_table(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", topics__tsv="1\tq\n", docs__tsv="d1\tCats\tThey sleep.\n", qrels__test="1 0 d1 1\n")
    assert read_trec(folder).corpus == {"d1": Document("Cats", "They sleep.")}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("qrels.test.txt", "301 0 d1\n", "line 1.*4 columns"),
        ("qrels.test.txt", "301 0 d1 yes\n", "line 1.*integer"),
        ("run.bm25.txt", "301 Q0 d1 1 high tag\n", "line 1.*number"),
        ("topics.txt", "301\n", "line 1.*id TAB text"),
        ("topics.txt", "<top><num>1</num></top>", "block without id or text"),
        ("topics.txt", "<html></html>", "no <top>"),
        ("topics.txt", '{"_id": "1"}\n', "line 1.*an id"),
    ],
)
def test_malformed_files(folder: Path, name: str, text: str, words: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        read_trec(folder)


def test_missing_files(folder: Path) -> None:
    (folder / "topics.txt").unlink()
    with pytest.raises(DataError, match=r"no topics file.*topics\.\*"):
        read_trec(folder)


def test_a_file_that_is_not_gzipped(folder: Path) -> None:
    (folder / "docs.trec.gz").write_text("plain", encoding="utf-8")
    with pytest.raises(DataError, match="gzipped only if"):
        read_trec(folder)


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        ("First part. <P>Second.</P> <i>Third</i> tail", "First part. Second. Third tail"),
        ("\n<P>One.\n<P>Two.\n", "One. Two."),
        ("where a <b and c> d, a<b, a < b", "where a <b and c> d, a<b, a < b"),
        ('<F P="102">Type</F> of<BR/>news <!-- note -->', "Type of news <!-- note -->"),
        ("One <title>Two</title> three", "One Two three"),
        ("Topic: as it stands", "Topic: as it stands"),
    ],
)
def test_tags_inside_a_text_end_nothing(folder: Path, inside: str, text: str) -> None:
    docs = f"<DOC><DOCNO>d1</DOCNO><PROFILE>p</PROFILE>\n<TEXT>{inside}</TEXT><PUB>x</PUB></DOC>"
    write(folder, docs__trec__gz=docs)
    assert read_trec(folder).corpus["d1"].text == text


def test_the_oldest_topics_have_further_fields(folder: Path) -> None:
    head = "<head> Tipster Topic Description\n<num> Number: 301\n<dom> Domain: Law\n<title> Topic: Cats\n"
    write(folder, topics__txt=f"<top>\n{head}<smry> Not read.\n<desc> Nor this.\n</top>")
    assert read_trec(folder).queries == {"301": "Cats"}


@pytest.mark.parametrize("mark", ["\u2028", "\u0085", "\x0c", "\x1e"])
def test_only_line_feeds_end_a_line(folder: Path, mark: str) -> None:
    write(folder, topics__txt=f"301\tcats{mark}sleep\r\n302\tbirds\r\n")
    assert read_trec(folder).queries == {"301": f"cats{mark}sleep", "302": "birds"}


def test_json_lines_with_a_line_separator_inside(folder: Path) -> None:
    (folder / "docs.trec.gz").unlink()
    write(folder, docs__jsonl='{"id": "d1", "text": "one\u2028two"}\r\n')
    assert read_trec(folder).corpus == {"d1": Document("", "one\u2028two")}


@pytest.mark.parametrize("name", ["run.bm25.txt", "run.test.txt"])
@pytest.mark.parametrize(("old", "new"), [("30", "topic-"), (" d", " doc-")], ids=["queries", "documents"])
def test_a_run_of_other_ids_is_refused(folder: Path, name: str, old: str, new: str) -> None:
    (folder / "run.bm25.txt").unlink()
    (folder / name).write_text(RUN.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError, match=r"are for none of its queries.*such as \['301', '302'\]"):
        load_data(DataStep(sets=[str(folder)]), progress=False)


def test_queries_that_a_run_lacks_are_counted(folder: Path) -> None:
    (folder / "run.bm25.txt").write_text(RUN.splitlines()[0], encoding="utf-8")
    data = load_data(DataStep(sets=[str(folder)]), progress=False)
    assert data.splits["test"].candidates == {"301": ["d2"], "302": []}
    assert data.notes[-1] == "1 of 2 test queries have no given candidates"


def test_a_run_serves_the_splits_whose_queries_it_has(folder: Path) -> None:
    write(folder, topics__txt="301\tcats\n302\tbirds\n303\tswallows\n", qrels__train__txt="303 0 d2 1\n")
    data = load_data(DataStep(sets=[str(folder)]), progress=False)
    assert data.splits["test"].candidates["301"] == ["d1", "d2"] and data.splits["train"].candidates["303"][0] == "d2"
    assert data.notes[-1] == "no train query has given candidates: they are retrieved with BM25"
