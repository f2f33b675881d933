"""Text files of rows: TSV has no quoting and CSV has, byte-order marks, line ends, ids, grades and repeated lines."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hfcompress.data.beir import load_beir, read_beir
from hfcompress.data.draft import Draft, finish
from hfcompress.data.lines import read_lines, read_text
from hfcompress.data.ranking import RankingData
from hfcompress.data.tables import read_files
from hfcompress.data.trec import read_trec
from hfcompress.data.trec_run import read_run
from hfcompress.errors import DataError

BOM = "\ufeff"
ROWS = [(f'"question {n}' if n % 4 == 1 else f"question {n}", f"answer {n}", f'other "{n}') for n in range(40)]
PHRASES = ['"to be or not to be"', '"', '""', 'a 5" pipe', '"5', 'said "yes"', '"a" and "b"', "'x'", "a,b", "\\t"]


def texts(draft: Draft) -> dict[str, dict[str, int]]:
    ((_, qrels),) = draft.qrels.items()
    return {
        draft.queries[query]: {draft.corpus[document].content: grade for document, grade in grades.items()}
        for query, grades in qrels.items()
    }


def tsv(*rows: tuple[str, ...], end: str = "\n") -> str:
    return "".join("\t".join(row) + end for row in rows)


def quoted(rows: list[tuple[str, ...]], quoting: int = csv.QUOTE_MINIMAL, delimiter: str = "\t") -> str:
    stream = io.StringIO()
    csv.writer(stream, quoting=quoting, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def put(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("___", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = text.encode()
        path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return folder


def beir(folder: Path, qrels: str, **files: str) -> Path:
    rows = {
        "corpus": [{"_id": f"d{n}", "title": "", "text": f"answer {n}"} for n in (1, 2, 3)],
        "queries": [{"_id": f"q{n}", "text": f"question {n}"} for n in (1, 2)],
    }
    written = {f"{name}__jsonl": "".join(json.dumps(row) + "\n" for row in each) for name, each in rows.items()}
    return put(folder, **{**written, "qrels___test__tsv": qrels, **files})


def trec(folder: Path, **files: str) -> Path:
    texts = {"topics__tsv": "1\tquestion\n2\tmore\n", "docs__tsv": "d1\tanswer\nd2\tother\n"}
    return put(folder, **{**texts, "qrels__test__txt": "1 0 d1 1\n2 0 d2 1\n", **files})


# Quotation marks


def test_tsv_rows_whose_fields_begin_with_a_quotation_mark_are_all_read(tmp_path: Path) -> None:
    put(tmp_path, test__tsv=tsv(("query", "positive", "negative"), *ROWS))
    draft = read_files(tmp_path / "test.tsv")
    assert texts(draft) == {query: {positive: 1, negative: 0} for query, positive, negative in ROWS}


@pytest.mark.parametrize("phrase", PHRASES)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_tsv_fields_are_literal(tmp_path: Path, phrase: str, place: int) -> None:
    row = [phrase if index == place else each for index, each in enumerate(("q", "p", "n"))]
    put(tmp_path, test__tsv=tsv(("query", "positive", "negative"), tuple(row), ("r", 's "x', "t")))
    query, positive, negative = row
    assert texts(read_files(tmp_path / "test.tsv"))[query] == {positive: 1, negative: 0}


@pytest.mark.parametrize("phrase", PHRASES)
def test_trec_fields_are_literal(tmp_path: Path, phrase: str) -> None:
    trec(tmp_path, topics__tsv=f"1\t{phrase}\n2\tmore\n", docs__tsv=f"d1\t{phrase}\nd2\tother\n")
    draft = read_trec(tmp_path)
    assert draft.queries["1"] == phrase and draft.corpus["d1"].text == phrase and len(draft.corpus) == 2


@pytest.mark.parametrize("phrase", [*PHRASES, "two\nlines", "a\ttab", '"', "x" * 200_000])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_csv_has_quoting(tmp_path: Path, phrase: str, quoting: int) -> None:
    limit = csv.field_size_limit()
    rows = [("query", "positive", "negative"), (phrase, f"{phrase} p", "n"), ("r", "s", "t")]
    put(tmp_path, test__csv=quoted(rows, quoting, ","))
    found = texts(read_files(tmp_path / "test.csv"))
    assert found == {phrase: {f"{phrase} p": 1, "n": 0}, "r": {"s": 1, "t": 0}}
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("rows", "quoting", "line"),
    [
        ([("q", 'said "yes"', "n"), ("q2", "p2", "n2")], csv.QUOTE_MINIMAL, 2),
        ([("q", "p", "n"), ("q2", 'said "yes"', "n2")], csv.QUOTE_MINIMAL, 3),
        ([("q", "p", "n")], csv.QUOTE_ALL, 1),
    ],
)
def test_tsv_that_was_written_with_quoting_is_refused(
    tmp_path: Path, rows: list[tuple[str, ...]], quoting: int, line: int
) -> None:
    put(tmp_path, test__tsv=quoted([("query", "positive", "negative"), *rows], quoting))
    with pytest.raises(DataError, match=rf"test\.tsv, line {line}\b.*without quoting.*QUOTE_NONE.*\.csv"):
        read_files(tmp_path / "test.tsv")


@pytest.mark.parametrize("text", ["two\nlines", "a\ttab"])
def test_a_break_inside_a_field_of_a_quoted_tsv_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    put(tmp_path, test__tsv=quoted([("query", "positive", "negative"), ("q", "p", "n"), ("q2", text, "n2")]))
    with pytest.raises(DataError, match=r"test\.tsv, line 3\b.*3 columns.*no quoting"):
        read_files(tmp_path / "test.tsv")


@pytest.mark.parametrize("name", ["topics__tsv", "docs__tsv"])
def test_quoted_ids_are_refused(tmp_path: Path, name: str) -> None:
    trec(tmp_path, **{name: quoted([("1", "one"), ("2", "two")], csv.QUOTE_ALL)})
    with pytest.raises(DataError, match=r"tsv, line 1\. Got: '\"1\"'.*without quoting"):
        read_trec(tmp_path)


def test_quoted_qrels_are_refused(tmp_path: Path) -> None:
    beir(tmp_path, quoted([("query-id", "corpus-id", "score"), ("q1", "d1", "1")], csv.QUOTE_ALL))
    with pytest.raises(DataError, match=r"test\.tsv, line"):
        read_beir(tmp_path)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('query,positive\nq,"open\nr,s\n', 2),
        ('query,positive\nq,p\n"q" 2,p\n', 3),
        ('query,positive\n"a\nb",p\nq,"x"y\n', 4),
        ("query,positive\nq,p\nq,p,more\n", 3),
        ("query,positive\nq,p\nq\n", 3),
        ("query,positive,positive\nq,p,p\n", 1),
    ],
)
def test_malformed_csv_is_refused_with_its_line(tmp_path: Path, content: str, line: int) -> None:
    put(tmp_path, test__csv=content)
    with pytest.raises(DataError, match=rf"test\.csv, line {line}\b.*Remedy: "):
        read_files(tmp_path / "test.csv")


@pytest.mark.parametrize(
    ("content", "line"),
    [('{"query": "q"\n', 1), ('{"query": "q", "positive": "p"}\n[1]\n', 2), ("[1, 2]", 1), ("[", 1), ("text", 1)],
)
def test_malformed_json_is_refused_with_its_line(tmp_path: Path, content: str, line: int) -> None:
    put(tmp_path, test__jsonl=content)
    with pytest.raises(DataError, match=rf"test\.jsonl, line {line}\b.*JSON"):
        read_files(tmp_path / "test.jsonl")


# Byte-order marks and line ends: every text file of every reader

COLUMNS = "query{0}positive{0}negative\nq{0}p{0}n\nr{0}s{0}t\n"
RUN = "1 Q0 d2 1 2.0 tag\n1 Q0 d1 2 1.0 tag\n"
FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "test.csv": (COLUMNS.format(","), lambda folder: texts(read_files(folder / "test.csv"))),
    "test.tsv": (COLUMNS.format("\t"), lambda folder: texts(read_files(folder / "test.tsv"))),
    "test.jsonl": (
        '{"query": "q", "positive": "p"}\n{"query": "r", "positive": "s"}\n',
        lambda folder: texts(read_files(folder / "test.jsonl")),
    ),
    "test.json": (
        '[{"query": "q", "positive": "p"},\n{"query": "r", "positive": "s"}]\n',
        lambda folder: texts(read_files(folder / "test.json")),
    ),
    "run.test.txt": (RUN, lambda folder: read_run(folder / "run.test.txt")),
    **{
        name: (content, lambda folder: vars(read_trec(trec_beside(folder))))
        for name, content in {
            "topics.tsv": "1\tquestion\n2\tmore\n",
            "docs.tsv": "d1\tanswer\nd2\tother\n",
            "topics.trec": "<top>\n<num>1\n<title>question\n</top>\n<top><num>2</num><title>more</title></top>\n",
            "docs.jsonl": '{"id": "d1", "text": "answer"}\n{"id": "d2", "text": "other"}\n',
            "qrels.test.txt": "1 0 d1 1\n2 0 d2 1\n",
        }.items()
    },
    **{
        name: (content, lambda folder: vars(read_beir(beir_beside(folder))))
        for name, content in {
            "corpus.jsonl": '{"_id": "d1", "text": "one"}\n{"_id": "d2", "text": "two"}\n',
            "queries.jsonl": '{"_id": "q1", "text": "one"}\n{"_id": "q2", "text": "two"}\n',
            "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\n",
            "bm25/test.tsv": "query-id\tcorpus-id\trank\nq1\td1\t1\nq2\td2\t1\n",
            "meta.json": '{"language": "de",\n"relevant_from": 1}\n',
        }.items()
    },
}


def trec_beside(folder: Path) -> Path:
    """The folder with those of TREC's files that it lacks."""
    for kind, name, content in (
        ("topics", "topics.tsv", "1\tquestion\n2\tmore\n"),
        ("docs", "docs.tsv", "d1\tanswer\nd2\tother\n"),
        ("qrels", "qrels.test.txt", "1 0 d1 1\n2 0 d2 1\n"),
    ):
        if not any(path.name.startswith(kind) for path in folder.iterdir()):
            (folder / name).write_text(content, encoding="utf-8")
    return folder


def beir_beside(folder: Path) -> Path:
    """The folder with those of BEIR's files that it lacks."""
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        if not list(folder.glob(f"{name}*")):
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(FILES[name][0], encoding="utf-8")
    return folder


def mixed(content: str) -> str:
    """The content with all three line ends in turn."""
    ends = ("\r\n", "\n", "\r")
    return "".join(line + ends[number % 3] for number, line in enumerate(content.split("\n")[:-1]))


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: BOM + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        mixed,
        lambda text: BOM + mixed(text),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.removesuffix("\n"),
    ],
    ids=["BOM", "CRLF", "CR", "mixed", "BOM mixed", "blank lines", "no last line end"],
)
@pytest.mark.parametrize("name", FILES)
def test_marks_and_line_ends_change_nothing(
    name: str, change: Callable[[str], str], zipped: bool, tmp_path: Path
) -> None:
    content, read = FILES[name]
    if zipped and name.startswith(("test", "run", "meta")):
        pytest.skip("read by its name without .gz")
    found = []
    for text in (content, change(content)):
        folder = tmp_path / f"{len(found)}" / "set"
        put(folder, **{(name + ".gz" * zipped).replace("/", "___").replace(".", "__"): text})
        found.append(read(folder))
    assert found[0] == found[1]


def test_only_line_breaks_end_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffone\u2028\x0ctwo\r\n\r\n\x85\rthree\ufeff".encode())
    assert list(read_lines(tmp_path / "a.txt")) == [(1, "one\u2028\x0ctwo"), (4, "three\ufeff")]
    assert read_text(tmp_path / "a.txt").startswith("one")


def test_utf16_as_spreadsheets_write_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_bytes("query\tpositive\nq\tp\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"test\.tsv cannot be read.*UTF-8"):
        read_files(tmp_path / "test.tsv")


# Ids, grades, repeated lines, trailing tabs and spaces


def test_numeric_ids(tmp_path: Path) -> None:
    beir(
        tmp_path,
        "1\t7\t1\n",
        corpus__jsonl='{"_id": " 7 ", "text": "seven"}\n{"_id": 8.0, "text": "eight"}\n',
        queries__jsonl='{"_id": 1, "text": 42}\n',
    )
    data = load_beir(tmp_path)
    assert data.queries == {"1": "42"} and set(data.corpus) == {"7", "8"}
    assert data.splits["test"].qrels == {"1": {"7": 1}}
    put(tmp_path / "t", topics__jsonl='{"id": 1, "text": "q"}\n', docs__jsonl='{"id": 7.0, "text": 3}\n')
    put(tmp_path / "t", qrels__test__txt="1 0 7 1\n")
    draft = read_trec(tmp_path / "t")
    assert draft.queries == {"1": "q"} and draft.corpus["7"].text == "3" and draft.qrels["test"] == {"1": {"7": 1}}


@pytest.mark.parametrize(("grade", "value"), [("1.0", 1), ("2.", 2), ("+1", 1), ("0.00", 0), ("-1.0", 0), (" 3 ", 3)])
def test_whole_grades_in_any_notation(tmp_path: Path, grade: str, value: int) -> None:
    data = load_beir(beir(tmp_path / "b", f"q1\td1\t{grade}\nq2\td2\t1\n"))
    assert data.splits["test"].qrels["q1"] == {"d1": value}
    trec(tmp_path / "t", qrels__test__txt=f"1 0 d1 {grade}\n2 0 d2 1\n")
    assert finish(read_trec(tmp_path / "t"), {}, 5, 0).splits["test"].qrels["1"] == {"d1": value}


@pytest.mark.parametrize("grade", ["1.5", "nan", "inf", "1e0", "yes", "--1", "0x1", "1,0"])
def test_other_grades_are_refused_with_their_line(tmp_path: Path, grade: str) -> None:
    expected = rf"line 2\. Got: {re.escape(repr(grade))}.*a grade that is an integer"
    with pytest.raises(DataError, match=expected):
        read_beir(beir(tmp_path / "b", f"q1\td1\t1\nq2\td2\t{grade}\n"))
    with pytest.raises(DataError, match=expected):
        read_trec(trec(tmp_path / "t", qrels__test__txt=f"1 0 d1 1\n2 0 d2 {grade}\n"))


def finished(tmp_path: Path, layout: str, *grades: str) -> RankingData:
    if layout == "beir":
        return load_beir(beir(tmp_path, "".join(f"q1\td1\t{grade}\n" for grade in grades) + "q2\td2\t1\n"))
    trec(tmp_path, qrels__test__txt="".join(f"1 0 d1 {grade}\n" for grade in grades) + "2 0 d2 1\n")
    return finish(read_trec(tmp_path), {}, 5, 0)


@pytest.mark.parametrize("layout", ["beir", "trec"])
def test_repeated_judgements_count_once_and_are_counted(tmp_path: Path, layout: str) -> None:
    data = finished(tmp_path, layout, "2", "2.0", "2")
    assert [list(grades.values()) for grades in data.splits["test"].qrels.values()] == [[2], [1]]
    assert "2 repeated judgements count once" in data.notes
    assert not any("repeated" in note for note in finished(tmp_path, layout, "2").notes)


@pytest.mark.parametrize("layout", ["beir", "trec"])
def test_judgements_that_contradict_each_other_are_refused(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DataError, match=r"line 3\. Got: 'q?1 d1: 0, and 2 before'.*contradict"):
        finished(tmp_path, layout, "2", "2", "0")


@pytest.mark.parametrize("tail", ["\t", " ", "\t \t", "\t\t"])
def test_trailing_tabs_and_spaces(tmp_path: Path, tail: str) -> None:
    end = f"{tail}\n"
    beir(
        tmp_path / "b",
        tsv(("query-id", "corpus-id", "score"), ("q1 ", " d1", "1"), end=end),
        bm25___test__tsv=tsv(("query-id", "corpus-id", "rank"), ("q1", "d2", "1"), end=end),
    )
    split = load_beir(tmp_path / "b").splits["test"]
    assert split.qrels == {"q1": {"d1": 1}} and split.candidates == {"q1": ["d2"]}
    trec(tmp_path / "t", topics__tsv=tsv(("1", "q"), end=end), docs__tsv=tsv(("d1", "T", "a"), ("d2", "b"), end=end))
    draft = read_trec(tmp_path / "t")
    assert draft.queries == {"1": "q"} and [each.content for each in draft.corpus.values()] == ["T a", "b"]
    put(tmp_path, test__tsv=tsv(("query", "positive"), ("q", "p"), end=end))
    assert texts(read_files(tmp_path / "test.tsv")) == {"q": {"p": 1}}
    put(tmp_path, test__csv=f"query, positive{tail.replace(chr(9), ',')}\nq,p{tail.replace(chr(9), ',')}\n")
    assert list(texts(read_files(tmp_path / "test.csv"))) == ["q"]
