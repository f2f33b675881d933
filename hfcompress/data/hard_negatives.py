"""Hard negative mining: BM25 candidates of train queries, scored by a teacher, without probable false negatives."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from hfcompress.data.bm25 import retrieve
from hfcompress.data.lists import list_row, score_lists, unrepeated
from hfcompress.data.ranking import RankingData, Split
from hfcompress.data.write import write_files, write_json_lines
from hfcompress.errors import DataError, OutputError
from hfcompress.utils.files import replaced_folder
from hfcompress.utils.settings import Closed

SCORES_FOLDER, RECORD_FILE, LISTS_FILE = ".scores", "mine.json", "lists/train.jsonl"


class MiningResult(Closed):
    """Settings and counts of a mining run.

    Attributes:
        teacher: Name of the teacher.
        depth: Documents retrieved per query.
        negatives: Maximum number of hard negatives per query.
        margin: Required distance to the score of the best relevant document, in logits.
        queries: Train queries with a relevant document.
        scored: Pairs scored by the teacher.
        copies: Candidates dropped because they have the text of a relevant document, or of another candidate.
        too_close: Candidates dropped because they score within the margin and are probably relevant.
        kept: Hard negatives kept.
        short: Queries with fewer than `negatives` hard negatives.
    """

    teacher: str
    depth: int
    negatives: int
    margin: float
    queries: int
    scored: int
    copies: int
    too_close: int
    kept: int
    short: int


def check_mining(data: RankingData, out: Path) -> None:
    """Check that the data can be mined, and that the folder is new or was written by an earlier call.

    Raises:
        DataError: There are no labelled train queries, or the data is a pool set.
        OutputError: The folder contains other files.
    """
    data.split("train")
    if data.pool:
        raise DataError(
            f"{data.name!r} has judged documents for each query, among them its negatives",
            value="a pool set",
            expected="a set whose candidates come from the whole corpus",
            remedy="train on it as it is: the documents judged as not relevant are its hard negatives",
        )
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    if out.is_file() or (names and SCORES_FOLDER not in names and RECORD_FILE not in names):
        raise OutputError(
            "The output folder contains other files",
            value=f"{out}: {', '.join(sorted(names)[:5])}",
            expected="a new or an empty folder, or one of an earlier `data mine`",
            remedy="choose another folder with --out",
        )


def mine_hard_negatives(
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
) -> MiningResult:
    """Mine hard negatives for labelled train queries, and write the data with them in BEIR's layout.

    BM25 retrieves `depth` documents per query, and the teacher scores them and the relevant documents. A candidate with
    the text of a relevant document (`text_key`), or of a candidate before it, is dropped unscored. A candidate that
    does not score `margin` below the best relevant document is dropped, since it is probably an unjudged relevant one
    (positive-aware mining with a margin, Moreira et al., "NV-Retriever", 2024). Of the others, the `negatives` with the
    highest scores become the candidates of the query in `bm25/train.tsv`, behind its relevant documents. Dev and test
    are unchanged. `lists/train.jsonl` has the same data as rows (query, docs, labels, scores), for other trainers.

    Scores are cached in `out/.scores`, so that a second call, after an interruption or with another margin, scores
    only missing pairs.

    Args:
        data: Data with a labelled train split.
        teacher: Any `Ranker`.
        out: Folder to write.
        name: Name of the teacher, for the result.
        fingerprint: Fingerprint of the teacher, under which its scores are cached.
        depth: Documents to retrieve per query.
        negatives: Maximum number of hard negatives per query.
        margin: Margin in logits; a larger one is stricter.
        progress: Show a progress bar.

    Raises:
        DataError: As for `check_mining`, or a score is not finite.
        OutputError: As for `check_mining`.
    """
    check_mining(data, out)
    lists, copies = _lists(data, depth)
    scores = score_lists(lists, teacher, progress, out / SCORES_FOLDER, fingerprint)
    chosen: dict[str, list[str]] = {}
    rows = []
    too_close = 0
    for row, values in zip(lists, scores, strict=True):
        relevant = sum(row["labels"])
        threshold = max(values[:relevant]) - margin
        scored = list(zip(values, row["document_ids"], strict=True))
        others = sorted(scored[relevant:], key=lambda pair: -pair[0])
        far = [(value, document) for value, document in others if value < threshold]
        too_close += len(others) - len(far)
        kept = [*scored[:relevant], *far[:negatives]]
        chosen[row["query_id"]] = [document for _, document in kept]
        rows.append(
            {
                "query": row["query"],
                "docs": [data.corpus[document].content for _, document in kept],
                "labels": [1] * relevant + [0] * (len(kept) - relevant),
                "scores": [round(value, 5) for value, _ in kept],
            }
        )
    found = [row["labels"].count(0) for row in rows]
    mined = MiningResult(
        teacher=name,
        depth=depth,
        negatives=negatives,
        margin=margin,
        queries=len(rows),
        scored=sum(map(len, scores)),
        copies=copies,
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
    with replaced_folder(out) as temporary:
        write_files(result, temporary)
        write_json_lines(temporary / LISTS_FILE, rows)
        (temporary / RECORD_FILE).write_text(mined.model_dump_json(indent=1) + "\n", encoding="utf-8")
        os.replace(out / SCORES_FOLDER, temporary / SCORES_FOLDER)
    return mined


def _lists(data: RankingData, depth: int) -> tuple[Dataset, int]:
    """Lists of every labelled train query: its relevant documents, followed by other BM25 candidates.

    Returns:
        The lists, and the number of candidates left out because their text is in the list already.
    """
    train = data.split("train")
    queries = {query: data.queries[query] for query in train.candidates}
    found = retrieve(queries, data.corpus, depth, data.language)
    rows, copies = [], 0
    for query in queries:
        if relevant := train.relevant(query):
            others = [document for document in found[query] if document not in relevant]
            negatives = list(unrepeated(data, others, {data.corpus[document].text_key for document in relevant}))
            copies += len(others) - len(negatives)
            listed = [*relevant, *negatives]
            rows.append(list_row(data, query, listed, [int(document in relevant) for document in listed]))
    return Dataset.from_list(rows), copies
