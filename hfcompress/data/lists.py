"""Training lists, each a query with several documents and their labels, and batches of them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from hfcompress.models.prompts import encode_pairs
from hfcompress.utils.device import shared_out
from hfcompress.utils.files import write_bytes
from hfcompress.utils.progress import progress_bar

RANKING_COLUMNS = ("labels", "teacher_scores", "list_mask")
LISTS_PER_CHUNK = 64  # an interruption of teacher scoring loses at most one chunk


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

    A list starts with up to `positives` relevant documents, sampled at random. Hard negatives follow, sampled from the
    candidates that are not relevant; in a pool set, these are the documents judged as not relevant. Documents sampled
    from the whole corpus fill the rest. A document with the text of a relevant one (`text_key`) is never a negative,
    whatever its id and judgement, and no text is a negative twice. A list is shorter only if the corpus has no further
    document for it.

    Args:
        data: Data with the split.
        documents: Documents per list.
        random_negatives: Documents per list to sample from the whole corpus; more if a query has few candidates.
        seed: Random seed. Each query has its own random stream, so adding queries changes no other list.
        positives: Maximum number of relevant documents per list.
        split: Name of the split.
        queries: Maximum number of lists; by default, one for every query.
        unlabelled: Also make lists of queries without a relevant document, from candidates and corpus, with labels of
            0, for distillation. Losses on labels are 0 for such a list, except `bce`, which would treat all of its
            documents as not relevant.

    Returns:
        A dataset with the columns `query_id`, `query`, `document_ids`, `documents` and `labels` (relevance grades).
        Queries without a relevant document are skipped, unless `unlabelled`.

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
        relevant = chosen.relevant(query)
        if not relevant and not unlabelled:
            continue
        rng = random.Random(f"{seed}:{query}")
        listed = rng.sample(relevant, min(positives, len(relevant), documents - 1))
        texts = {data.corpus[document].text_key for document in relevant}
        hard = list(unrepeated(data, (document for document in candidates if not grades.get(document)), set(texts)))
        wanted = documents - random_negatives - len(listed)
        listed += rng.sample(hard, max(0, min(wanted, len(hard))))
        texts |= {data.corpus[document].text_key for document in listed}
        taken = {*listed, *relevant}
        while len(listed) < documents and len(taken) < len(identifiers):
            drawn = rng.choice(identifiers)
            if drawn not in taken:
                taken.add(drawn)
                listed += unrepeated(data, [drawn], texts)
        rows.append(list_row(data, query, listed, [float(grades.get(document, 0)) for document in listed]))
    return Dataset.from_list(rows)


def unrepeated(data: RankingData, documents: Iterable[str], texts: set[str]) -> Iterator[str]:
    """Yield the documents whose text is new.

    Args:
        data: The data of the documents.
        documents: Ids of documents.
        texts: The `text_key` of texts that are not new; those of the documents are added.
    """
    for document in documents:
        key = data.corpus[document].text_key
        if key not in texts:
            texts.add(key)
            yield document


def list_row(data: RankingData, query_id: str, document_ids: list[str], labels: list[Any]) -> dict[str, Any]:
    """Return a list as a row of the dataset."""
    return {
        "query_id": query_id,
        "query": data.queries[query_id],
        "document_ids": document_ids,
        "documents": data.documents(query_id, document_ids),
        "labels": labels,
    }


def check_corpus(data: RankingData, documents: int) -> None:
    """Check that the corpus is large enough for lists of `documents` documents.

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

    With a cache, scores are written chunk by chunk, under a hash of the ranker's fingerprint and the texts. A second
    call, e.g. after an interruption, scores only missing chunks.

    Args:
        lists: Lists from `training_lists`.
        scorer: Any `Ranker`, e.g. the teacher in int8.
        column: Name of the new column.
        progress: Show a progress bar.
        cache: Folder of cached scores, which may be shared by all teachers and data sets.
        fingerprint: Fingerprint of the ranker; required with a cache.

    Raises:
        DataError: A score is NaN or infinite, or a cache is given without a fingerprint.
    """
    return lists.add_column(column, score_lists(lists, scorer, progress, cache, fingerprint))


def score_lists(
    lists: Dataset, scorer: Any, progress: bool = True, cache: Path | None = None, fingerprint: str = ""
) -> list[list[float]]:
    """Return the raw scores of a ranker for every document of every list, as `with_scores` adds them.

    A ranker with `parallel_calls` above 1, such as a `RayRanker`, scores as many chunks at the same time. Under
    `accelerate launch`, each process scores every n-th chunk, and all get all scores; every process must call this,
    with the same lists. Either way these are the scores of a single process, in the same order, of the same chunks.
    """
    if cache and not fingerprint:
        raise DataError(
            "Cached scores need the fingerprint of their ranker",
            value="",
            expected="a string that changes whenever the ranker's scores may change",
            remedy="pass hfcompress.models.load.model_fingerprint(name), joined with the longest input",
        )
    starts = range(0, len(lists), LISTS_PER_CHUNK)
    bar = progress_bar(total=len(lists), desc="teacher scores", unit="query", disable=not progress, leave=False)

    def of_chunk(start: int) -> list[list[float]]:
        chunk = lists[start : start + LISTS_PER_CHUNK]
        pairs = [(q, d) for q, documents in zip(chunk["query"], chunk["documents"], strict=True) for d in documents]
        flat = iter(_cached(cache, fingerprint, scorer, pairs).tolist())
        with bar.get_lock():
            bar.update(len(chunk["query"]))
        return [[next(flat) for _ in documents] for documents in chunk["documents"]]

    calls = getattr(scorer, "parallel_calls", 1)
    with bar:
        if calls == 1:
            return [row for rows in shared_out(of_chunk, starts) for row in rows]
        threads = ThreadPoolExecutor(calls, thread_name_prefix="teacher scores")
        try:
            return [row for rows in threads.map(of_chunk, starts) for row in rows]
        finally:
            threads.shutdown(cancel_futures=True)


def _cached(cache: Path | None, fingerprint: str, scorer: Any, pairs: list[tuple[str, str]]) -> np.ndarray:
    """Return the scores of pairs, from the cache if possible."""
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
            f"The teacher gives {len(wrong)} of {len(pairs)} pairs a score that is NaN or infinite",
            value=f"{scores[wrong[0]]} for {query[:60]!r} with {document[:60]!r}",
            expected="finite raw logits",
            remedy="check the teacher's checkpoint, and score in fp32",
        )
    return scores


def model_inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the model inputs in a batch of `RankingCollator`: all columns except `RANKING_COLUMNS`."""
    return {name: value for name, value in batch.items() if name not in RANKING_COLUMNS}


@dataclass
class RankingCollator:
    """Collate lists into a batch of pairs.

    Attributes:
        tokenizer: Tokenizer of the model; from `load_tokenizer`, with the prompt that is prepended to each query.
        max_length: Maximum number of tokens of a pair.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate lists, which may differ in length.

        Returns:
            The tokenizer's tensors for all pairs, shape `(pairs, tokens)`, and tensors of shape `(lists, documents)`,
            padded to the longest list: `labels`, `list_mask` (true where there is a document) and, if the lists have
            them, `teacher_scores`.
        """
        sizes = [len(row["documents"]) for row in rows]
        batch = dict(
            encode_pairs(
                self.tokenizer,
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
