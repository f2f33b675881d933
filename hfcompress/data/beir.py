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

from hfcompress.data.bm25 import retrieve
from hfcompress.data.draft import hashed_split, lift_grades
from hfcompress.data.lines import bad_line
from hfcompress.data.ranking import SPLITS, Document, RankingData, Split, check, check_texts, first_queries
from hfcompress.errors import DataError


def load_beir(
    folder: Path,
    candidates: int = 20,
    unlabelled: bool = False,
    seed: int = 0,
    limits: Mapping[str, int | None] | None = None,
) -> RankingData:
    """Read `corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv` and, where present, `bm25/SPLIT.tsv`; each may be `.gz`.

    The candidates of a split are those of `bm25/SPLIT.tsv` (columns query-id, corpus-id, rank); where there is no such
    file, they are retrieved with BM25. In a *pool set* (`meta.json` has `"candidates": "pool"`) they are the judged
    documents of a query, also the ones judged as not relevant. `meta.json` may also name `relevant_from`, `language`,
    `permissive` (the licence) and `publish_texts`. Grades below 0 (junk) count as 0.

    Args:
        folder: The data folder.
        candidates: Documents a query to retrieve where no candidates are given.
        unlabelled: Take the queries that no qrels file names for train queries without labels; their candidates are
            those of `bm25/train.tsv`, where it has them. Where there are no qrels at all, queries are split by hash.
        seed: Seed of that split.
        limits: At most so many queries of a split, as `RankingData.limited` chooses them; candidates are retrieved only
            for these.

    Raises:
        DataError: A file is missing, empty or malformed, or ids do not resolve.
    """
    if not folder.is_dir():
        raise DataError(
            "There is no such data folder",
            value=str(folder),
            expected="a folder with corpus.jsonl, queries.jsonl and qrels/",
            remedy="check the path",
        )
    meta = _read_meta(folder)
    pool = meta.get("candidates") == "pool"
    language = str(meta.get("language", "en"))
    queries = {row["_id"]: row["text"] for row in _read_jsonl(folder, "queries")}
    corpus = {
        row["_id"]: Document(title=row.get("title") or "", text=row["text"]) for row in _read_jsonl(folder, "corpus")
    }
    check_texts(folder.resolve().name, queries, corpus)  # before BM25, which needs some word
    judged = {split: qrels for split in SPLITS if (qrels := _read_qrels(folder, split)) is not None}
    notes = lift_grades(judged)
    members = {split: list(qrels) for split, qrels in judged.items()}
    first_stage = "BM25"
    listed: dict[str, dict[str, list[str]]] = {}  # candidates that need not be retrieved
    for split, qrels in judged.items():
        given = _read_candidates(folder, split)
        if pool:
            if given is None:
                first_stage = "order of the judgements"
            listed[split] = {query: _pool((given or {}).get(query, []), grades) for query, grades in qrels.items()}
            continue
        if given is not None and not given.keys() & qrels.keys():
            raise DataError(
                f"{folder / 'bm25' / split}.tsv names no query of qrels/{split}.tsv",
                value=list(given)[:5],
                expected=f"candidates for queries such as {list(qrels)[:5]}",
                remedy="check that both files belong to the same data set",
            )
        listed[split] = {} if given is None else {query: given.get(query, []) for query in qrels}
    if unlabelled and not judged:
        members = _hashed(queries, seed)
        everywhere: dict[str, list[str]] = {}
        for split in SPLITS:
            everywhere |= _read_candidates(folder, split) or {}
        listed = dict.fromkeys(members, everywhere)
    elif unlabelled:
        known = {query for qrels in judged.values() for query in qrels}
        members["train"] = [*members.get("train", []), *(query for query in queries if query not in known)]
        listed["train"] = {**(_read_candidates(folder, "train") or {}), **listed.get("train", {})}
    if not members:
        raise DataError(
            f"The data folder {folder} has no judgements",
            expected="at least qrels/test.tsv",
            remedy="add the qrels files",
        )
    limits = limits or {}
    wanted = {
        query: queries[query]
        for split, those in members.items()
        for query in first_queries(those, limits.get(split))
        if query in queries and query not in listed[split]
    }
    found = retrieve(wanted, corpus, candidates, language) if wanted else {}
    splits = {
        split: Split(judged.get(split, {}), {query: listed[split].get(query, found.get(query, [])) for query in those})
        for split, those in members.items()
    }
    data = check(
        RankingData(
            name=folder.resolve().name,
            queries=queries,
            corpus=corpus,
            splits=splits,
            relevant_from=int(meta.get("relevant_from", 1)),
            pool=pool,
            publish_texts=bool(meta.get("publish_texts", False)),
            license=str(meta.get("permissive", meta.get("license", ""))),
            language=language,
            notes=tuple(notes),
            first_stage=first_stage,
        )
    )
    return data.limited(limits) if limits else data


def _hashed(queries: Mapping[str, str], seed: int) -> dict[str, list[str]]:
    """Queries without judgements by the split to which a hash assigns them."""
    split_of = {query: hashed_split(text, seed) for query, text in queries.items()}
    found = {name: [query for query in queries if split_of[query] == name] for name in SPLITS}
    return {name: of_split for name, of_split in found.items() if of_split}


def _pool(listed: list[str], judged: Mapping[str, int]) -> list[str]:
    """Judged documents in the order of the first stage; those it did not list come last."""
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
            f"{path} is not valid JSON, or not of the kind expected",
            value=str(error),
            expected="a JSON object in UTF-8, with an integer for relevant_from if it is there",
            remedy="correct the file, or remove it",
        ) from error


def _read_jsonl(folder: Path, name: str) -> list[dict]:
    path = _find(folder, f"{name}.jsonl")
    if path is None:
        raise DataError(
            f"The data folder {folder} has no {name}.jsonl or {name}.jsonl.gz",
            expected="one JSON object a line with _id and text",
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
                raise bad_line(path, number, line.strip(), "an object with the texts _id and text")
            if row["_id"] in rows:
                raise bad_line(path, number, row["_id"], "an _id that stands on no earlier line")
            rows[row["_id"]] = row
    if not rows:
        raise DataError(
            f"{path} is empty",
            expected="at least one JSON object",
            remedy="write the file again",
        )
    return list(rows.values())


def _read_table(folder: Path, name: str) -> Iterator[tuple[Path, int, list[str]]]:
    """Yield (path, line number, columns) of a tab-separated file without its header; nothing if there is no file."""
    path = _find(folder, name)
    if path is None:
        return
    with _open(path) as stream:
        for number, row in enumerate(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
            if not row or (number == 1 and row[0] in ("query-id", "qid", "query_id")):
                continue
            if len(row) < 3:
                raise bad_line(path, number, "\t".join(row), "three tab-separated columns: query-id, corpus-id, score")
            yield path, number, row


def _read_qrels(folder: Path, split: str) -> dict[str, dict[str, int]] | None:
    name = f"qrels/{split}.tsv"
    if _find(folder, name) is None:
        return None
    qrels: dict[str, dict[str, int]] = {}
    for path, number, (query, document, grade, *_) in _read_table(folder, name):
        if not re.fullmatch(r"-?\d+", grade.strip()):
            raise bad_line(path, number, grade, "a grade that is an integer")
        if document in qrels.setdefault(query, {}):
            raise bad_line(path, number, f"{query} {document}", "each document judged once a query")
        qrels[query][document] = int(grade)
    if not qrels:
        raise DataError(
            f"{folder / name} is empty",
            expected="at least one judgement",
            remedy="write the file again, or remove it if there is no such split",
        )
    return qrels


def _read_candidates(folder: Path, split: str) -> dict[str, list[str]] | None:
    name = f"bm25/{split}.tsv"
    if _find(folder, name) is None:
        return None
    ranked: dict[str, list[tuple[int, str]]] = {}
    for path, number, (query, document, rank, *_) in _read_table(folder, name):
        if not rank.strip().isdecimal():
            raise bad_line(path, number, rank, "a rank that is an integer")
        ranked.setdefault(query, []).append((int(rank), document))
    if not ranked:
        raise DataError(
            f"{folder / name} is empty",
            expected="at least one candidate",
            remedy="write the file again, or remove it to have the candidates retrieved with BM25",
        )
    return {query: [document for _, document in sorted(rows)] for query, rows in ranked.items()}
