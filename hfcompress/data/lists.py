"""Training lists: a query with several documents and their labels, and the batches made of them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from safetensors.numpy import load_file, save
from transformers import PreTrainedTokenizerBase

from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError
from hfcompress.files import write_bytes
from hfcompress.progress import progress_bar

LISTS_PER_PART = 64  # what an interruption of teacher scoring loses at most


def training_lists(
    data: RankingData,
    documents: int,
    random_negatives: int,
    seed: int,
    positives: int = 1,
    split: str = "train",
    queries: int | None = None,
    unlabelled: bool = False,
) -> Dataset:
    """Make one list of documents for each query of a split.

    A list starts with up to `positives` relevant documents, drawn at random. Hard negatives follow: candidates of the
    first stage that are not relevant, drawn at random, which in a pool set are the documents judged as not relevant.
    Documents drawn from the whole corpus fill the rest; a list is shorter only where no other
    document is left that is not relevant.

    Args:
        data: Data with the split.
        documents: Documents of a list.
        random_negatives: How many of them are drawn from the whole corpus; more where a query has few candidates.
        seed: Seed of the draw; each query has its own stream, so that adding queries changes no other list.
        positives: Relevant documents of a list at most.
        split: The split to draw from.
        queries: At most so many lists; one for every query by default.
        unlabelled: Make a list of a query without a relevant document too, from its candidates and the corpus, with
            labels of 0. It is there for what a teacher says: losses on labels are 0 for such a list, but for `bce`,
            which would take every document of it for not relevant.

    Returns:
        A dataset with the columns `query_id`, `query`, `document_ids`, `documents` and `labels` (relevance grades).
        Queries without a relevant document are left out, unless `unlabelled`.

    Raises:
        DataError: The split is missing or has no relevant documents (no queries, if `unlabelled`), or the corpus is
            smaller than a list.
    """
    chosen = data.split(split, labelled=not unlabelled)
    identifiers = list(data.corpus)
    check_corpus(data, documents)
    rows: list[dict[str, Any]] = []
    for query, candidates in chosen.candidates.items():
        if len(rows) == queries:
            break
        grades = chosen.qrels.get(query, {})
        relevant = [document for document, grade in grades.items() if grade > 0]
        if not relevant and not unlabelled:
            continue
        rng = random.Random(f"{seed}:{query}")
        listed = rng.sample(relevant, min(positives, len(relevant), documents - 1))
        hard = [document for document in candidates if not grades.get(document)]
        wanted = documents - random_negatives - len(listed)
        listed += rng.sample(hard, max(0, min(wanted, len(hard))))
        taken = {*listed, *relevant}
        while len(listed) < documents and len(taken) < len(identifiers):
            drawn = rng.choice(identifiers)
            if drawn not in taken:
                taken.add(drawn)
                listed.append(drawn)
        rows.append(
            {
                "query_id": query,
                "query": data.queries[query],
                "document_ids": listed,
                "documents": data.documents(query, listed),
                "labels": [float(grades.get(document, 0)) for document in listed],
            }
        )
    return Dataset.from_list(rows)


def check_corpus(data: RankingData, documents: int) -> None:
    """Check that lists of so many documents can be made.

    Raises:
        DataError: The corpus is too small.
    """
    if len(data.corpus) <= documents:
        raise DataError(
            f"The corpus of {data.name!r} is too small for lists of {documents} documents",
            value=f"{len(data.corpus)} documents",
            expected=f"more than {documents}",
            remedy="use shorter lists or a larger corpus",
        )


def with_scores(
    lists: Dataset,
    scorer: Any,
    column: str = "teacher_scores",
    progress: bool = True,
    cache: Path | None = None,
    fingerprint: str = "",
) -> Dataset:
    """Add a column with the raw scores of a ranker for every document of every list.

    With a cache, scores are written part by part, under a hash of the ranker's fingerprint and the part's texts: a
    second call, also after an interruption, scores only what is missing.

    Args:
        lists: What `training_lists` returned.
        scorer: Any `Ranker`, be it the teacher in int8.
        column: Name of the new column.
        progress: Show a progress bar.
        cache: Folder of scores; it may be shared by all teachers and data.
        fingerprint: What distinguishes this ranker's scores from those of others; needed with a cache.

    Raises:
        DataError: A score is NaN or infinite, or a cache is given without a fingerprint.
    """
    return lists.add_column(column, scores_of(lists, scorer, progress, cache, fingerprint))


def scores_of(
    lists: Dataset, scorer: Any, progress: bool = True, cache: Path | None = None, fingerprint: str = ""
) -> list[list[float]]:
    """Raw scores of a ranker for every document of every list.

    Args:
        lists: As for `with_scores`.
        scorer: As for `with_scores`.
        progress: As for `with_scores`.
        cache: As for `with_scores`.
        fingerprint: As for `with_scores`.

    Raises:
        DataError: As for `with_scores`.
    """
    if cache and not fingerprint:
        raise DataError(
            "Cached scores need the fingerprint of their ranker",
            value="",
            expected="a text that changes whenever the ranker's scores may change",
            remedy="pass hfcompress.models.model_fingerprint(name), joined with the longest input",
        )
    scores: list[list[float]] = []
    bar = progress_bar(total=len(lists), desc="teacher scores", unit="query", disable=not progress, leave=False)
    for start in range(0, len(lists), LISTS_PER_PART):
        part = lists[start : start + LISTS_PER_PART]
        pairs = [(q, d) for q, documents in zip(part["query"], part["documents"], strict=True) for d in documents]
        flat = iter(_cached(cache, fingerprint, scorer, pairs).tolist())
        scores += [[next(flat) for _ in documents] for documents in part["documents"]]
        bar.update(len(part["query"]))
    bar.close()
    return scores


def _cached(cache: Path | None, fingerprint: str, scorer: Any, pairs: list[tuple[str, str]]) -> np.ndarray:
    """Scores of pairs, from the cache where it has them all."""
    if cache is None:
        return _finite(scorer.score(pairs), pairs)
    content = json.dumps([fingerprint, pairs], ensure_ascii=False)
    path = cache / f"{hashlib.sha256(content.encode()).hexdigest()}.safetensors"
    if path.is_file():
        return load_file(path)["scores"]
    scores = _finite(scorer.score(pairs), pairs)
    write_bytes(path, save({"scores": np.ascontiguousarray(scores)}))
    return scores


def _finite(scores: np.ndarray, pairs: list[tuple[str, str]]) -> np.ndarray:
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        query, document = pairs[wrong[0]]
        raise DataError(
            f"The teacher gives {len(wrong)} of {len(pairs)} pairs a score that is not a number",
            value=f"{scores[wrong[0]]} for {query[:60]!r} with {document[:60]!r}",
            expected="finite raw logits",
            remedy="check the teacher's checkpoint, and score in fp32",
        )
    return scores


@dataclass
class RankingCollator:
    """Turn lists into one batch of pairs.

    Attributes:
        tokenizer: Tokenizer of the model.
        max_length: Longest pair in tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate lists, which may differ in length.

        Returns:
            The tokenizer's tensors for all real pairs, `(pairs, tokens)`; and per list, padded to the longest one:
            `labels` `(lists, documents)`, `list_mask` (true where there is a document) and, if the lists have them,
            `teacher_scores`.
        """
        sizes = [len(row["documents"]) for row in rows]
        batch = dict(
            self.tokenizer(
                [row["query"] for row, size in zip(rows, sizes, strict=True) for _ in range(size)],
                [document for row in rows for document in row["documents"]],
                truncation=True,
                max_length=self.max_length,
                padding=True,
                return_tensors="pt",
            )
        )
        batch["list_mask"] = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
        for column in ("labels", "teacher_scores"):
            if column in rows[0]:
                batch[column] = _padded([row[column] for row in rows], max(sizes))
        return batch


def _padded(values: list[list[float]], width: int) -> torch.Tensor:
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in values])
