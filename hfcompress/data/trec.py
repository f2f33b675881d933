"""Reading a folder of TREC files: topics, documents, qrels, and runs as candidates."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from hfcompress.data.document import Document
from hfcompress.data.draft import ALL, DEFAULTS, Draft, ReadOptions, split_name
from hfcompress.data.judgements import add_judgement, clip_grades, drop_unknown
from hfcompress.data.lines import bad_line, read_lines, read_text, unquoted
from hfcompress.data.trec_run import read_run
from hfcompress.data.values import as_identifier, as_text
from hfcompress.errors import DataError

TOPICS = ("topics", "queries")
DOCUMENTS = ("docs", "documents", "collection", "corpus")
QRELS, RUNS = ("qrels",), ("run",)
_TAGGED = re.compile(r"<(top|doc)\b[^>]*>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
# A tag is a name, alone or with attributes. Other angle brackets are text: "a < b", "<b and c>".
_FIELD = r"</?(?:num|title|desc|narr|docno|headline|text)(?:\s[^<>]*)?>"
_TAG = r"</?[a-z]\w*(?:\s[^<>]*=[^<>]*)?\s*/?>"
_ANY_TAG = re.compile(f"{_FIELD}|{_TAG}", re.IGNORECASE)
_LABEL = re.compile(r"^(?:number|topic)\s*:\s*", re.IGNORECASE)


def is_trec(folder: Path) -> bool:
    """Whether a folder has files named like topics, documents, and qrels or runs."""
    return all(files_named(folder, kind) for kind in (TOPICS, DOCUMENTS, (*QRELS, *RUNS)))


def read_trec(source: str | Path, options: ReadOptions = DEFAULTS) -> Draft:
    """Read a folder whose files are named by kind, optionally followed by a dot or hyphen and a split.

    - `topics.*` or `queries.*`: `id TAB text` lines, JSON lines (`_id` or `id`, `text`), or TREC's `<top>` blocks,
      whose title is the query.
    - `docs.*`, `documents.*`, `collection.*` or `corpus.*`: `id TAB text` or `id TAB title TAB text` lines, JSON lines
      (`_id`, `id` or `docno`, `title`, `text` or `contents`), or TREC's `<DOC>` blocks.
    - `qrels.SPLIT.*`: four columns, `query iteration document grade`. Grades below 0 (junk) count as 0. A judgement may
      be repeated with the same grade.
    - `run.SPLIT.*`: six columns, `query Q0 document rank score tag`. The candidates are ordered by score; documents of
      equal score keep the order of the lines.

    Lines with tabs have no quoting: a quotation mark is a character like others. Each file may be gzipped (`.gz`).
    Without a split in their names, qrels are split by hash, and a run serves every split that has queries in it.

    Raises:
        DataError: A file is missing or malformed.
    """
    folder = Path(source)
    for kind, what in ((TOPICS, "topics"), (DOCUMENTS, "documents"), ((*QRELS, *RUNS), "qrels or run")):
        if not files_named(folder, kind):
            raise DataError(
                f"The folder {folder} has no {what} file",
                expected=f"a file named {' or '.join(f'{each}.*' for each in kind)}",
                remedy="rename the file, or convert the data to BEIR's layout",
            )
    draft = Draft(folder.resolve().name)
    for path in files_named(folder, TOPICS):
        draft.queries |= {key: text for key, _, text in read_texts(path)}
    for path in files_named(folder, DOCUMENTS):
        draft.corpus |= {key: Document(title, text) for key, title, text in read_texts(path)}
    for path in files_named(folder, QRELS):
        split = _split_of(path)
        draft.qrels.setdefault(split, {})
        for number, columns in _columns(path, 4, "query iteration document grade"):
            query, _, document, grade = columns[:4]
            add_judgement(draft, split, query, document, grade, f"{path}, line {number}")
        if not draft.qrels[split]:
            draft.empty_files[split] = path.name
    for path in files_named(folder, RUNS):
        draft.candidates[_split_of(path)] = {
            query: sorted(scores, key=lambda document: -scores[document]) for query, scores in read_run(path).items()
        }
    drop_unknown(draft)
    clip_grades(draft)
    return draft


def files_named(folder: Path, kinds: tuple[str, ...]) -> list[Path]:
    """Return the files of a folder whose names begin with one of these kinds, such as `TOPICS`."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and re.split(r"[._-]", path.name.lower())[0] in kinds
    )


def _split_of(path: Path) -> str:
    parts = re.split(r"[._-]", path.name.lower())[1:]
    return next((split for part in parts if (split := split_name(part))), ALL)


def _columns(path: Path, count: int, names: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in read_lines(path):
        columns = line.split()
        if len(columns) < count:
            raise bad_line(path, number, line.strip(), f"{count} columns: {names}")
        yield number, columns


def read_texts(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (id, title, text) of topics or documents, in any of the three formats that `read_trec` lists.

    Args:
        path: The file, plain or gzipped (`.gz`).

    Raises:
        DataError: The file cannot be read or is malformed.
    """
    lines = read_lines(path)
    first = next(lines, (1, ""))
    start = first[1].lstrip()[:1]
    if start == "<":
        yield from _blocks(path, read_text(path))
    elif start == "{":
        for number, line in chain([first], lines):
            yield _json_record(path, number, line)
    else:
        fields = ((number, line.split("\t")) for number, line in chain([first], lines) if line)
        for number, (key, *rest) in unquoted(path, fields):
            while len(rest) > 1 and not rest[-1].strip():
                rest.pop()
            if not rest or not key.strip():
                raise bad_line(path, number, "\t".join([key, *rest]), "id TAB text")
            yield key.strip(), "\t".join(rest[:-1]).strip(), rest[-1].strip()


def _json_record(path: Path, number: int, line: str) -> tuple[str, str, str]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise bad_line(path, number, str(error), "a JSON object") from error
    row = row if isinstance(row, dict) else {}
    key = as_identifier(next((row[name] for name in ("_id", "id", "docno", "qid") if name in row), None))
    texts = [as_text(row[name]) for name in ("text", "contents", "query") if name in row]
    text = next(filter(None, texts), "" if "" in texts else None)
    title = as_text(row.get("title"))
    if key is None or text is None or title is None:
        raise bad_line(path, number, line, "an object with an id (_id, id, docno or qid) and a text")
    return key, title, text


def _blocks(path: Path, text: str) -> Iterator[tuple[str, str, str]]:
    """Yield the records of `<top>` and `<DOC>` blocks; closing tags inside are optional, as in TREC's own files."""
    found = False
    for match in _TAGGED.finditer(text):
        found = True
        topic, block = match.group(1).lower() == "top", match.group(2)
        key = _LABEL.sub("", _field(block, "num")) if topic else _field(block, "docno")
        title = _field(block, "title") or _field(block, "headline")
        body = _LABEL.sub("", title) if topic else _field(block, "text")
        if not key or (topic and not body and "<title" not in block.lower()):
            raise DataError(
                f"{path} has a block without id or text",
                value=match.group()[:120],
                expected="<num> and <title> in every <top>, <DOCNO> in every <DOC>",
                remedy="correct or remove this block",
            )
        yield key, "" if topic else title, body
    if not found:
        raise DataError(
            f"{path} has no <top> and no <DOC> block", expected="TREC's tags", remedy="check what the file is"
        )


def _field(block: str, name: str) -> str:
    """Return the joined text of all fields of a name, with other tags replaced by spaces; empty if there is none.

    A field without closing tag ends at the next field, and fields other than the text also at any other tag, since
    TREC's oldest topics have fields that are not read here.
    """
    end = _FIELD if name == "text" else f"{_FIELD}|{_TAG}"
    pattern = rf"<{name}(?:\s[^<>]*)?>(?:(.*?)</{name}\s*>|(.*?)(?={end}|\Z))"
    found = re.findall(pattern, block, re.IGNORECASE | re.DOTALL)
    return " ".join(_ANY_TAG.sub(" ", " ".join(closed or unclosed for closed, unclosed in found)).split())
