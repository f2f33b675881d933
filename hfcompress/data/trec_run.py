"""Run files in the format of trec_eval: `query Q0 document rank score tag`, six columns separated by white space."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from hfcompress.data.lines import bad_line, read_lines
from hfcompress.errors import DataError, OutputError
from hfcompress.utils.files import write_text

Scores = dict[str, dict[str, float]]
"""`{query id: {document id: score}}`."""


def read_run(path: Path) -> Scores:
    """Read a run file, plain or gzipped (`.gz`).

    As in trec_eval, only the score orders the documents; rank, `Q0` and tag are ignored.

    Raises:
        DataError: The file cannot be read or is empty, a line does not have six columns or a finite score, or a
            document appears twice for a query. The error names the line.
    """
    run: Scores = {}
    for number, line in read_lines(path, "a run file"):
        columns = line.split()
        if len(columns) != 6:
            raise bad_line(path, number, line.strip(), "six columns: query Q0 document rank score tag")
        query, _, document, _, text, _ = columns
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise bad_line(path, number, text, "a score that is a finite number, in the fifth column")
        if document in run.setdefault(query, {}):
            raise bad_line(path, number, f"{query} {document}", "each document once for a query")
        run[query][document] = score
    if not run:
        raise DataError(
            f"{path} holds no ranking",
            expected="lines of six columns: query Q0 document rank score tag",
            remedy="write the file again",
        )
    return run


def write_run(
    path: Path, run: Mapping[str, Mapping[str, float]], orders: Mapping[str, Sequence[str]], tag: str
) -> Path:
    """Write a run file. Scores are written in full precision, so that metrics of the file are the same.

    Args:
        path: The file.
        run: Scores, `{query id: {document id: score}}`.
        orders: Documents of each query, best first.
        tag: Name of the ranker; white space in it becomes a hyphen.

    Raises:
        DataError: An id is empty or contains white space, which the format does not allow.
    """
    check_ids(orders)
    name = "-".join(tag.split()) or "run"
    lines = []
    for query, scores in run.items():
        for rank, document in enumerate(orders[query], 1):
            lines.append(f"{query} Q0 {document} {rank} {float(scores[document])!r} {name}\n")
    return write_text(path, "".join(lines))


def check_target(path: Path) -> None:
    """Check that a run file can be written: its nearest existing parent folder is writable.

    Raises:
        OutputError: The file cannot be written.
    """
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(
            "The run file cannot be written there",
            value=str(path),
            expected="the path of a file, in a folder that can be written or created",
            remedy="choose another path with --run",
        )


def check_ids(lists: Mapping[str, Sequence[str]]) -> None:
    """Check that the ids of queries and documents can be written to a run file.

    Raises:
        DataError: An id is empty or contains white space, which the format does not allow.
    """
    for query, documents in lists.items():
        for kind, identifier in (("query", query), *(("document", document) for document in documents)):
            if len(identifier.split()) != 1:
                raise DataError(
                    f"A run file cannot hold this {kind} id",
                    value=identifier,
                    expected="ids without white space",
                    remedy="leave --run out, or rename the ids",
                )
