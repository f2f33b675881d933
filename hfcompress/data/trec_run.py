"""Run files as trec_eval reads them: `query Q0 document rank score tag`, six columns with white space between them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from hfcompress.data.lines import bad_line, read_text
from hfcompress.errors import DataError, OutputError
from hfcompress.files import write_text

Scores = dict[str, dict[str, float]]
"""`{query id: {document id: score}}`."""


def read_run(path: Path) -> Scores:
    """Read a run file, plain or `.gz`.

    The score alone orders the documents, as in trec_eval: the columns of the rank, `Q0` and the tag are not looked at.

    Raises:
        DataError: The file cannot be read or is empty, a line has not six columns or its score is no finite number, or
            a document stands twice for a query; with the number of the line.
    """
    run: Scores = {}
    for number, line in enumerate(read_text(path, "a run file").split("\n"), 1):
        columns = line.split()
        if not columns:
            continue
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
    """Write a run file that gives the same figures when it is read again, to the last digit.

    Args:
        path: The file.
        run: The scores.
        orders: The documents of each query, best first.
        tag: Name of the ranker; white space in it becomes a hyphen.

    Raises:
        DataError: An id is empty or holds white space, which this format cannot carry.
    """
    check_ids(orders)
    name = "-".join(tag.split()) or "run"
    lines = []
    for query, scores in run.items():
        for rank, document in enumerate(orders[query], 1):
            lines.append(f"{query} Q0 {document} {rank} {float(scores[document])!r} {name}\n")
    return write_text(path, "".join(lines))


def check_target(path: Path) -> None:
    """Check that a run file can be written: the nearest folder above it that is there takes files.

    Raises:
        OutputError: It cannot.
    """
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(
            "The run file cannot be written there",
            value=str(path),
            expected="the path of a file, in a folder that can be written or made",
            remedy="choose another path with --run",
        )


def check_ids(lists: Mapping[str, Sequence[str]]) -> None:
    """Check that a run file can hold the ids of queries and of their documents.

    Raises:
        DataError: An id is empty or holds white space, which this format cannot carry.
    """
    for query, documents in lists.items():
        _check_id("query", query)
        for document in documents:
            _check_id("document", document)


def _check_id(kind: str, identifier: str) -> None:
    if not identifier or len(identifier.split()) != 1:
        raise DataError(
            f"A run file cannot hold this {kind} id",
            value=identifier,
            expected="ids without white space",
            remedy="leave --run out, or rename the ids",
        )
