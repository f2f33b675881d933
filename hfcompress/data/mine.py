"""Hard negatives: what BM25 finds for a train query, scored by a teacher, without what is probably relevant."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from pydantic import BaseModel

from hfcompress.data.bm25 import retrieve
from hfcompress.data.lists import scores_of
from hfcompress.data.ranking import RankingData, Split
from hfcompress.data.write import write_files
from hfcompress.errors import DataError, OutputError
from hfcompress.files import replaced_folder

SCORES_FOLDER, RECORD_FILE, LISTS_FILE = ".scores", "mine.json", "lists/train.jsonl"


class Mined(BaseModel):
    """What was mined.

    Attributes:
        teacher: Name of the teacher.
        depth: Documents that BM25 retrieved for a query.
        negatives: Hard negatives wanted for a query.
        margin: How far below the best relevant document a candidate has to score, in logits.
        queries: Train queries with a relevant document.
        scored: Pairs that the teacher scored.
        too_close: Candidates left out, as they score within the margin: they are probably relevant.
        kept: Hard negatives kept.
        short: Queries with fewer negatives than wanted.
    """

    teacher: str
    depth: int
    negatives: int
    margin: float
    queries: int
    scored: int
    too_close: int
    kept: int
    short: int


def check_mine(data: RankingData, out: Path) -> None:
    """Check that the data can be mined, and that the folder is new or of an earlier call.

    Raises:
        DataError: There are no labelled train queries, or the data is a pool set.
        OutputError: The folder holds something else.
    """
    data.split("train")
    if data.pool:
        raise DataError(
            f"{data.name!r} names the documents of each query itself, judged as not relevant where they are not",
            value="a pool set",
            expected="a set whose candidates come from the whole corpus",
            remedy="train on it as it is: the documents judged as not relevant are its hard negatives",
        )
    strange = [] if not out.is_dir() else [path.name for path in out.iterdir()]
    if out.is_file() or (strange and SCORES_FOLDER not in strange and RECORD_FILE not in strange):
        raise OutputError(
            "The output folder holds something else",
            value=f"{out}: {', '.join(sorted(strange)[:5])}",
            expected="a new or an empty folder, or one of an earlier `data mine`",
            remedy="choose another folder with --out",
        )


def mine(
    data: RankingData,
    teacher: Any,
    out: Path,
    *,
    name: str,
    fingerprint: str,
    depth: int = 50,
    negatives: int = 8,
    margin: float = 0.0,
    progress: bool = True,
) -> Mined:
    """Mine hard negatives for labelled train queries, and write the data with them in BEIR's layout.

    BM25 retrieves `depth` documents of a query. The teacher scores those that are not judged relevant, and the relevant
    ones; a candidate that does not score `margin` below the best relevant document is left out, since it is
    probably relevant and only not judged (the margin of a positive in Moreira et al., "NV-Retriever", 2024). Of the
    rest, the `negatives` that score highest become the query's candidates in `bm25/train.tsv`, behind its relevant
    documents. Dev and test stay as they are. `lists/train.jsonl` has the same as training lists (query, docs, labels,
    scores), for other trainers.

    Scores are kept in `out/.scores`: a second call, after an interruption or with another margin, scores only what is
    missing.

    Args:
        data: Data with a labelled train split.
        teacher: Any `Ranker`.
        out: Folder to write.
        name: Name of the teacher, for the record.
        fingerprint: What distinguishes its scores from those of others.
        depth: Documents of a query that BM25 retrieves.
        negatives: Hard negatives of a query at most.
        margin: In logits; above 0 is stricter.
        progress: Show a progress bar.

    Raises:
        DataError: As for `check_mine`; or a score is not finite.
        OutputError: As for `check_mine`.
    """
    check_mine(data, out)
    lists = _lists(data, depth)
    scores = scores_of(lists, teacher, progress, out / SCORES_FOLDER, fingerprint)
    chosen: dict[str, list[str]] = {}
    rows = []
    too_close = 0
    for row, values in zip(lists, scores, strict=True):
        first = sum(row["labels"])
        limit = max(values[:first]) - margin
        others = sorted(zip(values[first:], row["document_ids"][first:], strict=True), key=lambda each: -each[0])
        far = [(value, document) for value, document in others if value < limit]
        too_close += len(others) - len(far)
        kept = [*zip(values[:first], row["document_ids"][:first], strict=True), *far[:negatives]]
        chosen[row["query_id"]] = [document for _, document in kept]
        rows.append(
            {
                "query": row["query"],
                "docs": [data.corpus[document].content for _, document in kept],
                "labels": [1] * first + [0] * (len(kept) - first),
                "scores": [round(value, 5) for value, _ in kept],
            }
        )
    found = [row["labels"].count(0) for row in rows]
    mined = Mined(
        teacher=name,
        depth=depth,
        negatives=negatives,
        margin=margin,
        queries=len(rows),
        scored=sum(map(len, scores)),
        too_close=too_close,
        kept=sum(found),
        short=sum(count < negatives for count in found),
    )
    train = data.splits["train"]
    note = f"hard negatives of train queries mined with BM25 and {name}, margin {margin:g}"
    result = replace(
        data,
        splits={**data.splits, "train": Split(train.qrels, {**train.candidates, **chosen})},
        notes=(*data.notes, note),
    )
    _write(result, rows, mined, out)
    return mined


def _lists(data: RankingData, depth: int) -> Dataset:
    """The relevant documents of every labelled train query, then what BM25 finds besides."""
    train = data.split("train")
    queries = {query: data.queries[query] for query in train.candidates}
    found = retrieve(queries, data.corpus, depth, data.language)
    rows = []
    for query, text in queries.items():
        relevant = dict.fromkeys(document for document, grade in train.qrels.get(query, {}).items() if grade > 0)
        if relevant:
            listed = [*relevant, *(document for document in found[query] if document not in relevant)]
            rows.append(
                {
                    "query_id": query,
                    "query": text,
                    "document_ids": listed,
                    "documents": data.documents(query, listed),
                    "labels": [int(document in relevant) for document in listed],
                }
            )
    return Dataset.from_list(rows)


def _write(data: RankingData, rows: list[dict[str, Any]], mined: Mined, out: Path) -> None:
    with replaced_folder(out) as aside:
        write_files(data, aside)
        (aside / LISTS_FILE).parent.mkdir()
        with (aside / LISTS_FILE).open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (aside / RECORD_FILE).write_text(mined.model_dump_json(indent=1) + "\n", encoding="utf-8")
        os.replace(out / SCORES_FOLDER, aside / SCORES_FOLDER)
