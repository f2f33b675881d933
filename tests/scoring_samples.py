"""Inputs of `hfcompress score` in every format, with columns of all kinds beside the pairs, and outputs read again."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

FORMATS = ("jsonl", "csv", "tsv", "parquet", "trec")
Pairs = Sequence[tuple[str, str]]
QUOTED = 'a "quoted", text\nof two lines'


def write_input(folder: Path, kind: str, pairs: Pairs) -> tuple[Path, dict[str, Any]]:
    """Write an input; return it and the settings that it needs."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "trec":
        return write_run(folder, pairs)
    path = folder / f"pairs.{kind}"
    if kind == "jsonl":
        rows = [{"id": n, "query": q, "document": d, "more": {"é": [n, None]}} for n, (q, d) in enumerate(pairs)]
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([["id", "query", "note", "document"]])
            csv.writer(stream).writerows([[n, q, QUOTED, d] for n, (q, d) in enumerate(pairs)])
    elif kind == "tsv":
        lines = ["id\tquery\tdocument\tnote", *(f'{n}\t{q}\t{d}\t"é' for n, (q, d) in enumerate(pairs))]
        path.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    else:
        pyarrow.parquet.write_table(table_of(pairs), path, row_group_size=7)
    return path, {}


def table_of(pairs: Pairs) -> pyarrow.Table:
    notes = pyarrow.array([f"note {n % 3}" for n in range(len(pairs))]).dictionary_encode()
    vectors = pyarrow.array([[n / 2, 1.0] for n in range(len(pairs))], pyarrow.list_(pyarrow.float32(), 2))
    columns = {
        "id": pyarrow.array(range(len(pairs)), pyarrow.int16()),
        "query": [query for query, _ in pairs],
        "document": pyarrow.array([document for _, document in pairs], pyarrow.large_string()),
        "note": notes,
        "vector": vectors,
    }
    return pyarrow.table(columns).replace_schema_metadata({"made by": "a test"})


def write_run(folder: Path, pairs: Pairs, documents: int = 5) -> tuple[Path, dict[str, Any]]:
    """A run of five documents a query, whose text is that of the first pair, and its texts."""
    queries = {f"q{n // documents}": pairs[n - n % documents][0] for n in range(len(pairs))}
    with gzip.open(folder / "queries.tsv.gz", "wt", encoding="utf-8") as stream:
        stream.writelines(f"{key}\t{text}\n" for key, text in queries.items())
    corpus = [{"_id": f"d{n}", "title": "", "text": document} for n, (_, document) in enumerate(pairs)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus), encoding="utf-8")
    lines = [f"q{n // documents} Q0 d{n} {1 + n % documents} {9 - n % documents} bm25\n" for n in range(len(pairs))]
    path = folder / "first.run"
    path.write_text("".join(lines))
    return path, {"corpus": str(folder / "corpus.jsonl"), "queries": folder / "queries.tsv.gz"}


def scored_pairs(kind: str, pairs: Pairs, documents: int = 5) -> Pairs:
    """The pairs that the input of `write_input` stands for."""
    if kind != "trec":
        return pairs
    return [(pairs[n - n % documents][0], document) for n, (_, document) in enumerate(pairs)]


def read_scores(kind: str, path: Path) -> list[float]:
    """The scores of an output in its order."""
    if kind == "parquet":
        return pyarrow.parquet.read_table(path)["score"].to_pylist()
    text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
    if kind == "jsonl":
        return [json.loads(line)["score"] for line in text.splitlines()]
    if kind == "trec":
        return [float(line.split()[4]) for line in text.splitlines()]
    if kind == "tsv":
        return [float(line.split("\t")[-1]) for line in text.splitlines()[1:]]
    return [float(row["score"]) for row in csv.DictReader(text.splitlines(keepends=True))]
