"""Writing ranking data as a folder in BEIR's layout."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError, OutputError
from hfcompress.utils.files import replaced_folder


def check_new(folder: Path) -> None:
    """Check that a folder is new or empty.

    Raises:
        OutputError: It is a file, or not empty.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise OutputError(
            "The output folder is in use",
            value=str(folder),
            expected="a new or an empty folder",
            remedy="choose another folder, or remove this one",
        )


def write_beir(data: RankingData, folder: Path) -> Path:
    """Write a folder, from which `load_beir` loads data with the same fingerprint, and return its path.

    Candidates of any first stage are written to `bm25/SPLIT.tsv`. Queries without judgements are written too;
    `load_beir` reads them with `unlabelled`.

    Raises:
        OutputError: The folder is neither new nor empty.
        DataError: An id contains a tab or a line break, which the layout does not allow.
    """
    check_new(folder)
    with replaced_folder(folder) as temporary:
        write_files(data, temporary)
    return folder


def write_files(data: RankingData, folder: Path) -> None:
    """Write the files of `write_beir` into an existing folder."""
    bad = [key for key in (*data.queries, *data.corpus) if not key.strip() or any(mark in key for mark in "\t\r\n")]
    if bad:
        raise DataError(
            f"Ids of {data.name!r} cannot be written into a table",
            value=bad[:5],
            expected="ids without tabs and line breaks",
            remedy="rename these ids",
        )
    write_json_lines(folder / "queries.jsonl", ({"_id": key, "text": text} for key, text in data.queries.items()))
    write_json_lines(
        folder / "corpus.jsonl",
        ({"_id": key, "title": each.title, "text": each.text} for key, each in data.corpus.items()),
    )
    for name, split in data.splits.items():
        judged = [(query, key, grade) for query, grades in split.qrels.items() for key, grade in grades.items()]
        if judged:
            _table(folder / "qrels" / f"{name}.tsv", ("query-id", "corpus-id", "score"), judged)
        listed = [
            (query, key, rank) for query, keys in split.candidates.items() for rank, key in enumerate(keys, start=1)
        ]
        if listed:
            _table(folder / "bm25" / f"{name}.tsv", ("query-id", "corpus-id", "rank"), listed)
    meta = {
        "candidates": "pool" if data.pool else "corpus",
        "relevant_from": data.relevant_from,
        "language": data.language,
        "permissive": data.license,
        "publish_texts": data.publish_texts,
        "notes": list(data.notes),
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line; the parent folder is created if necessary."""
    _write_lines(path, (json.dumps(row, ensure_ascii=False) for row in rows))


def _table(path: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    _write_lines(path, ("\t".join(map(str, row)) for row in (header, *rows)))


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(f"{line}\n" for line in lines)
