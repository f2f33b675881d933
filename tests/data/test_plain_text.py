"""Plain text files as documents."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from hfcompress.data.document import Document
from hfcompress.data.plain_text import MAX_PARAGRAPH_LINES, first_documents, is_text_file, read_documents
from hfcompress.errors import DataError


def texts(path: Path) -> list[str]:
    return sorted(document.text for document in read_documents(path).values())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("one line\nanother line\n", ["another line", "one line"]),
        ("\n\none line\nanother line\n\n", ["another line", "one line"]),  # blank lines at the ends mean nothing
        ("a first\nparagraph\n\n \na second one\n", ["a first paragraph", "a second one"]),
        ("\ufeffwindows\r\n\r\nline ends\r\n", ["line ends", "windows"]),
    ],
)
def test_lines_or_paragraphs(tmp_path: Path, content: str, expected: list[str]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content.encode())
    assert texts(path) == expected
    packed = tmp_path / "a.txt.gz"
    packed.write_bytes(gzip.compress(content.encode()))
    assert texts(packed) == expected and is_text_file(str(packed)) and not is_text_file("a.jsonl")


def test_a_stray_blank_line_in_a_list_of_documents(tmp_path: Path) -> None:
    lines = [f"document {number}" for number in range(MAX_PARAGRAPH_LINES + 1)]
    (tmp_path / "a.txt").write_text("\n".join([*lines, "", "the last one"]))
    assert texts(tmp_path / "a.txt") == sorted([*lines, "the last one"])


def test_a_large_collection_is_drawn_from() -> None:
    documents = [(str(number), Document("", f"text {number}")) for number in range(500)]
    few, more = first_documents(documents, 10), first_documents(documents, 50)
    assert len(few) == 10 and list(more)[:10] == list(few)
    assert few.keys() != {str(number) for number in range(10)}


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.txt is empty"):
        read_documents(tmp_path / "a.txt")
    with pytest.raises(DataError, match="No such file"):
        read_documents(tmp_path / "b.txt")
