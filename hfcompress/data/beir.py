"""Reading a data folder in BEIR's layout, plain or gzipped."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hfcompress.data.document import Document
from hfcompress.data.draft import ALL, DEFAULTS, Draft, Qrels, ReadOptions, clip_grades, finish
from hfcompress.data.lines import bad_line
from hfcompress.data.ranking import SPLITS, RankingData
from hfcompress.errors import DataError


def load_beir(
    folder: Path,
    candidates: int = 20,
    unlabelled: bool = False,
    seed: int = 0,
    limits: Mapping[str, int | None] | None = None,
) -> RankingData:
    """Load a folder in BEIR's layout.

    The files are `corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv` and, optionally, `bm25/SPLIT.tsv`; each may be
    gzipped (`.gz`). The candidates of a split are those of `bm25/SPLIT.tsv` (columns query-id, corpus-id, rank), or are
    retrieved with BM25 if there is no such file. In a *pool set* (`meta.json` has `"candidates": "pool"`) they are the
    judged documents of a query, including those judged as not relevant. `meta.json` may also have `relevant_from`,
    `language`, `permissive` (the licence) and `publish_texts`. Grades below 0 (junk) count as 0.

    Args:
        folder: The data folder.
        candidates: Documents to retrieve per query where no candidates are given.
        unlabelled: Add queries that no qrels file names to the train split, without labels; their candidates are those
            of `bm25/train.tsv`, if it has them. If there are no qrels at all, queries are split by hash.
        seed: Seed of that split.
        limits: Maximum number of queries by split, chosen as in `RankingData.limited`; candidates are retrieved only
            for these.

    Raises:
        DataError: A file is missing, empty or malformed, or ids do not resolve.
    """
    draft = read_beir(folder, ReadOptions(unlabelled=unlabelled))
    return finish(draft, limits or {}, candidates, seed, unlabelled, truncate=False)


def is_beir(folder: Path) -> bool:
    """Whether a folder has a corpus or queries under BEIR's names."""
    return any(folder.glob("corpus.jsonl*")) or any(folder.glob("queries.jsonl*"))


def read_beir(source: str | Path, options: ReadOptions = DEFAULTS) -> Draft:
    """Read a folder in BEIR's layout; see `load_beir`.

    Candidates of splits without qrels are read only if `options.unlabelled`.

    Raises:
        DataError: A file is missing, empty or malformed, or there are no judgements and not `options.unlabelled`.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise DataError(
            "There is no such data folder",
            value=str(folder),
            expected="a folder with corpus.jsonl, queries.jsonl and qrels/",
            remedy="check the path",
        )
    meta = _read_meta(folder)
    draft = Draft(
        folder.resolve().name,
        queries={row["_id"]: row["text"] for row in _read_jsonl(folder, "queries")},
        corpus={row["_id"]: Document(row.get("title") or "", row["text"]) for row in _read_jsonl(folder, "corpus")},
        pool=meta.get("candidates") == "pool",
        prepared=True,
        relevant_from=int(meta.get("relevant_from", 1)),
        publish_texts=bool(meta.get("publish_texts", False)),
        license=str(meta.get("permissive", meta.get("license", ""))),
        language=str(meta.get("language", "en")),
    )
    draft.qrels = {split: qrels for split in SPLITS if (qrels := _read_qrels(folder, split)) is not None}
    clip_grades(draft)
    if not draft.qrels and not options.unlabelled:
        raise DataError(
            f"The data folder {folder} has no judgements",
            expected="at least qrels/test.tsv",
            remedy="add the qrels files",
        )
    for split in SPLITS:
        if split in draft.qrels or (options.unlabelled and (split == "train" or not draft.qrels)):
            _add_candidates(draft, split, folder)
    return draft


def _add_candidates(draft: Draft, split: str, folder: Path) -> None:
    """Read the candidates of a split. Judged queries that the file does not name have none."""
    qrels = draft.qrels.get(split, {})
    given = _read_candidates(folder, split)
    if draft.pool and qrels:
        if given is None:
            draft.first_stage = "order of the judgements"
            given = {}
        pools = {query: _pool(given.get(query, []), grades) for query, grades in qrels.items()}
        draft.candidates[split] = {**given, **pools}
    elif given is not None:
        if qrels and not given.keys() & qrels.keys():
            raise DataError(
                f"{folder / 'bm25' / split}.tsv names no query of qrels/{split}.tsv",
                value=list(given)[:5],
                expected=f"candidates for queries such as {list(qrels)[:5]}",
                remedy="check that both files belong to the same data set",
            )
        target = split if draft.qrels else ALL
        draft.candidates.setdefault(target, {}).update({**{query: [] for query in qrels}, **given})


def _pool(listed: list[str], judged: Mapping[str, int]) -> list[str]:
    """Judged documents in the order of the first stage, followed by those that it did not list."""
    first = [document for document in listed if document in judged]
    seen = set(first)
    return first + [document for document in judged if document not in seen]


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


@contextmanager
def _open(path: Path) -> Iterator[IO[str]]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="") as stream:
            yield stream
    except (gzip.BadGzipFile, zlib.error, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read",
            value=f"{type(error).__name__}: {error}",
            expected="UTF-8 text, gzipped only if the name ends with .gz",
            remedy="write the file again",
        ) from error


def _read_meta(folder: Path) -> dict:
    path = folder / "meta.json"
    if not path.is_file():
        return {}
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(meta, dict) or not isinstance(meta.get("relevant_from", 1), int):
            raise ValueError(repr(meta))
        return meta
    except ValueError as error:  # also what json and the decoder raise
        raise DataError(
            f"{path} is not valid JSON, or has unexpected content",
            value=str(error),
            expected="a JSON object in UTF-8, in which relevant_from, if present, is an integer",
            remedy="correct the file, or remove it",
        ) from error


def _read_jsonl(folder: Path, name: str) -> list[dict]:
    path = _find(folder, f"{name}.jsonl")
    if path is None:
        raise DataError(
            f"The data folder {folder} has no {name}.jsonl or {name}.jsonl.gz",
            expected="one JSON object per line with _id and text",
            remedy="check that this is a folder in BEIR's layout",
        )
    rows: dict[str, dict] = {}
    with _open(path) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise bad_line(path, number, str(error), "a JSON object") from error
            if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("_id", "text")):
                raise bad_line(path, number, line.strip(), "an object with the strings _id and text")
            if row["_id"] in rows:
                raise bad_line(path, number, row["_id"], "an _id that is on no earlier line")
            rows[row["_id"]] = row
    if not rows:
        raise DataError(f"{path} is empty", expected="at least one JSON object", remedy="write the file again")
    return list(rows.values())


def _read_table(path: Path, content: str, otherwise: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, columns) of a tab-separated file without its header; an empty file is an error."""
    empty = True
    with _open(path) as stream:
        for number, row in enumerate(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
            if not row or (number == 1 and row[0] in ("query-id", "qid", "query_id")):
                continue
            if len(row) < 3:
                raise bad_line(path, number, "\t".join(row), "three tab-separated columns: query-id, corpus-id, score")
            empty = False
            yield number, row
    if empty:
        remedy = f"write the file again, or remove it {otherwise}"
        raise DataError(f"{path} is empty", expected=f"at least one {content}", remedy=remedy)


def _read_qrels(folder: Path, split: str) -> Qrels | None:
    path = _find(folder, f"qrels/{split}.tsv")
    if path is None:
        return None
    qrels: Qrels = {}
    for number, (query, document, grade, *_) in _read_table(path, "judgement", "if there is no such split"):
        if not re.fullmatch(r"-?\d+", grade.strip()):
            raise bad_line(path, number, grade, "a grade that is an integer")
        if document in qrels.setdefault(query, {}):
            raise bad_line(path, number, f"{query} {document}", "each document judged once per query")
        qrels[query][document] = int(grade)
    return qrels


def _read_candidates(folder: Path, split: str) -> dict[str, list[str]] | None:
    path = _find(folder, f"bm25/{split}.tsv")
    if path is None:
        return None
    ranked: dict[str, list[tuple[int, str]]] = {}
    rows = _read_table(path, "candidate", "to have the candidates retrieved with BM25")
    for number, (query, document, rank, *_) in rows:
        if not rank.strip().isdecimal():
            raise bad_line(path, number, rank, "a rank that is an integer")
        ranked.setdefault(query, []).append((int(rank), document))
    return {query: [document for _, document in sorted(listed)] for query, listed in ranked.items()}
