"""Reading a data folder in BEIR's layout, plain or gzipped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from hfcompress.data.document import Document
from hfcompress.data.draft import ALL, DEFAULTS, Draft, ReadOptions, finish
from hfcompress.data.judgements import add_judgement, clip_grades
from hfcompress.data.lines import bad_line, read_lines, read_text, unquoted
from hfcompress.data.ranking import SPLITS, RankingData
from hfcompress.data.values import as_document, as_grade
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
    `language`, `permissive` (the licence) and `publish_texts`. Grades below 0 (junk) count as 0. Ids may be numbers,
    grades may be written as `1.0`, and a judgement may be repeated with the same grade. The tables have no quoting. A
    qrels file without judgements counts as none. Texts are cleaned as `finish` does.

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
        queries={key: query.text for key, query in _read_jsonl(folder, "queries").items()},
        corpus=_read_jsonl(folder, "corpus"),
        pool=meta.get("candidates") == "pool",
        prepared=True,
        relevant_from=int(meta.get("relevant_from", 1)),
        publish_texts=bool(meta.get("publish_texts", False)),
        license=str(meta.get("permissive", meta.get("license", ""))),
        language=str(meta.get("language", "en")),
    )
    for split in SPLITS:
        _add_qrels(draft, folder, split)
    clip_grades(draft)
    if not draft.qrels and not options.unlabelled:
        raise DataError(
            f"The data folder {folder} has no judgements",
            value=", ".join(f"{file} is empty" for file in draft.empty_files.values()) or None,
            expected="at least qrels/test.tsv, with a judgement",
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


def _read_meta(folder: Path) -> dict:
    path = folder / "meta.json"
    if not path.is_file():
        return {}
    try:
        meta = json.loads(read_text(path))
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


def _read_jsonl(folder: Path, name: str) -> dict[str, Document]:
    """Read queries or documents by id; a missing text is empty."""
    path = _find(folder, f"{name}.jsonl")
    if path is None:
        raise DataError(
            f"The data folder {folder} has no {name}.jsonl or {name}.jsonl.gz",
            expected="one JSON object per line with _id and text",
            remedy="check that this is a folder in BEIR's layout",
        )
    rows: dict[str, Document] = {}
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise bad_line(path, number, str(error), "a JSON object") from error
        read = as_document(row) if isinstance(row, dict) and "text" in row else None
        if read is None:
            raise bad_line(path, number, line.strip(), "an object with _id and text, each a string or a number")
        key, document = read
        if key in rows:
            raise bad_line(path, number, key, "an _id that is on no earlier line")
        rows[key] = document
    if not rows:
        raise DataError(f"{path} is empty", expected="at least one JSON object", remedy="write the file again")
    return rows


def _read_table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, columns) of a tab-separated file without its header."""
    lines = ((number, [field.strip() for field in line.split("\t")]) for number, line in read_lines(path))
    for number, row in unquoted(path, lines):
        if number == 1 and row[0].lower() in ("query-id", "qid", "query_id"):
            continue
        if len(row) < 3:
            raise bad_line(path, number, "\t".join(row), "three tab-separated columns: query-id, corpus-id, score")
        yield number, row


def _add_qrels(draft: Draft, folder: Path, split: str) -> None:
    """Add the judgements of a split. A file without any counts as none, with a note."""
    path = _find(folder, f"qrels/{split}.tsv")
    if path is None:
        return
    for number, (query, document, grade, *_) in _read_table(path):
        add_judgement(draft, split, query, document, grade, f"{path}, line {number}")
    if split not in draft.qrels:
        draft.empty_files[split] = f"qrels/{path.name}"


def _read_candidates(folder: Path, split: str) -> dict[str, list[str]] | None:
    path = _find(folder, f"bm25/{split}.tsv")
    if path is None:
        return None
    ranked: dict[str, list[tuple[int, str]]] = {}
    for number, (query, document, rank, *_) in _read_table(path):
        place = as_grade(rank)
        if place is None or place < 0:
            raise bad_line(path, number, rank, "a rank that is an integer")
        ranked.setdefault(query, []).append((place, document))
    if not ranked:
        remedy = "write the file again, or remove it to have the candidates retrieved with BM25"
        raise DataError(f"{path} is empty", expected="at least one candidate", remedy=remedy)
    return {query: [document for _, document in sorted(listed)] for query, listed in ranked.items()}
