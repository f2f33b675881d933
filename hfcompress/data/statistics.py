"""Statistics of a data set, and warnings about leaks, duplicates, missing judgements and truncation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations, islice

import numpy as np
from transformers import PreTrainedTokenizerBase

from hfcompress.data.document import text_key
from hfcompress.data.ranking import RankingData, Split, stable_hash
from hfcompress.models.prompts import encode_pairs
from hfcompress.utils.settings import Closed

CUTOFF = 10
EXAMPLES = 5
SAMPLE = 4_000  # pairs that are tokenized
MANY_TRUNCATED, FEW_JUDGED = 0.2, 0.5


class Lengths(Closed):
    """Lengths of texts, in characters or tokens.

    Attributes:
        median: Median.
        p95: 95th percentile.
        longest: Maximum.
    """

    median: float
    p95: float
    longest: int


class SplitStatistics(Closed):
    """Statistics of one split.

    Attributes:
        queries: Number of queries.
        labelled: Queries with a relevant document.
        without_relevant: Queries without a relevant document, on which no metric can be computed.
        examples_without_relevant: Ids of some of them.
        grades: Number of judgements by grade.
        relevant_per_query: Mean number of relevant documents of queries that have some.
        candidates_per_query: Mean number of candidates.
        judged_at_10: Share of the first 10 candidates that are judged, averaged over queries. If it is low, metrics
            count many unjudged documents as not relevant.
        relevant_listed: Share of the relevant documents that are among the candidates, an upper bound of recall.
        not_listed: Number of relevant documents that are not among the candidates.
        repeated_queries: Queries whose text (`text_key`) occurs under another id of the split.
        relevant_copies: Candidates that have the text of a relevant document of their query under another id, and are
            not judged as relevant.
    """

    queries: int
    labelled: int
    without_relevant: int
    examples_without_relevant: list[str]
    grades: dict[int, int]
    relevant_per_query: float
    candidates_per_query: float
    judged_at_10: float
    relevant_listed: float
    not_listed: int
    repeated_queries: int
    relevant_copies: int


class Leak(Closed):
    """Overlap of two splits.

    Attributes:
        splits: Names of the two splits.
        queries: Queries of the second split whose text is also in the first, by `text_key`.
        pairs: Judged pairs of the second split whose texts are also judged in the first.
        examples: Ids in the second split of some of these queries.
    """

    splits: tuple[str, str]
    queries: int
    pairs: int
    examples: list[str]


class Truncation(Closed):
    """Share of pairs that a model truncates.

    Attributes:
        max_length: Maximum input length in tokens.
        pairs: Pairs of a query and a candidate that were tokenized.
        tokens: Lengths of these pairs.
        share: Share of pairs longer than `max_length`.
    """

    max_length: int
    pairs: int
    tokens: Lengths
    share: float


class DatasetStatistics(Closed):
    """Statistics of a data set, as `hfcompress data check` shows them.

    Attributes:
        name: Name of the data.
        language: Language; empty if unknown.
        license: Licence; empty if unknown.
        pool: Whether candidates are the judged documents.
        documents: Documents in the corpus.
        repeated_documents: Documents whose text (`text_key`) occurs under another id.
        unused_queries: Queries that are in no split.
        query_characters: Lengths of queries.
        document_characters: Lengths of documents with their titles.
        splits: Statistics by split.
        leaks: Pairs of splits that have queries or judged pairs in common.
        truncation: Lengths in tokens of a model; None without a model.
        notes: Notes of the loader.
    """

    name: str
    language: str
    license: str
    pool: bool
    documents: int
    repeated_documents: int
    unused_queries: int
    query_characters: Lengths
    document_characters: Lengths
    splits: dict[str, SplitStatistics]
    leaks: list[Leak]
    truncation: Truncation | None
    notes: list[str]

    def warnings(self) -> list[str]:
        """Return warnings for the user, in sentences."""
        found = []
        for leak in self.leaks:
            first, second = leak.splits
            found.append(
                f"{leak.queries} {second} queries and {leak.pairs} of its judged pairs are in {first} too "
                f"(e.g. {', '.join(leak.examples)}): metrics on {second} are too high"
            )
        for name, split in self.splits.items():
            if split.without_relevant:
                found.append(
                    f"{split.without_relevant} of {split.queries} {name} queries have no relevant document "
                    f"(e.g. {', '.join(split.examples_without_relevant)})"
                )
            if split.repeated_queries:
                found.append(f"{split.repeated_queries} {name} queries repeat the text of another one")
            if split.relevant_copies:
                found.append(
                    f"{split.relevant_copies} candidates in {name} repeat the text of a relevant document under "
                    "another id and count as not relevant: metrics are too low. Judge both ids, or keep one"
                )
            if name == "test" and split.labelled and split.judged_at_10 < FEW_JUDGED:
                found.append(
                    f"only {split.judged_at_10:.0%} of the first 10 candidates in {name} are judged: the others count "
                    "as not relevant, true or not"
                )
            if split.not_listed:
                found.append(
                    f"{split.not_listed:,} relevant documents in {name} are not among the candidates: no reranker can "
                    "find them"
                )
        if self.repeated_documents:
            found.append(f"{self.repeated_documents} documents repeat the text of another one")
        if self.truncation and self.truncation.share > MANY_TRUNCATED:
            found.append(
                f"{self.truncation.share:.0%} of the pairs are longer than {self.truncation.max_length} tokens and "
                "are truncated"
            )
        missing = [split for split in ("train", "dev", "test") if split not in self.splits]
        if missing:
            found.append(f"there is no {' and no '.join(missing)} split")
        return found


def dataset_statistics(
    data: RankingData, tokenizer: PreTrainedTokenizerBase | None = None, max_length: int | None = None
) -> DatasetStatistics:
    """Compute the statistics of a data set.

    Args:
        data: The data.
        tokenizer: Tokenizer of the model that reads the pairs; without it, tokens are not counted.
        max_length: Maximum input length in tokens; by default that of the tokenizer.
    """
    known = {query for split in data.splits.values() for query in split.candidates}
    texts = Counter(document.text_key for document in data.corpus.values())
    return DatasetStatistics(
        name=data.name,
        language=data.language,
        license=data.license,
        pool=data.pool,
        documents=len(data.corpus),
        repeated_documents=sum(count for count in texts.values() if count > 1),
        unused_queries=len(data.queries.keys() - known),
        query_characters=_lengths([len(text) for text in data.queries.values()]),
        document_characters=_lengths([len(document.content) for document in data.corpus.values()]),
        splits={name: _split_statistics(data, split) for name, split in data.splits.items()},
        leaks=_leaks(data),
        truncation=_truncation(data, tokenizer, max_length or tokenizer.model_max_length) if tokenizer else None,
        notes=list(data.notes),
    )


def _lengths(values: Sequence[int]) -> Lengths:
    return Lengths(
        median=float(np.median(values)), p95=float(np.percentile(values, 95)), longest=int(max(values, default=0))
    )


def _split_statistics(data: RankingData, split: Split) -> SplitStatistics:
    relevant = {query: split.relevant(query) for query in split.candidates}
    without = [query for query, documents in relevant.items() if not documents]
    labelled = len(relevant) - len(without)
    judged = [
        sum(document in split.qrels.get(query, {}) for document in documents[:CUTOFF]) / len(documents[:CUTOFF])
        for query, documents in split.candidates.items()
        if documents and relevant[query]
    ]
    listed = sum(len(set(keys) & set(split.candidates[query])) for query, keys in relevant.items())
    total = sum(map(len, relevant.values()))
    texts = Counter(text_key(data.queries[query]) for query in split.candidates)
    grades = Counter(grade for query in split.candidates for grade in split.qrels.get(query, {}).values())
    return SplitStatistics(
        queries=len(split),
        labelled=labelled,
        without_relevant=len(without),
        examples_without_relevant=without[:EXAMPLES],
        grades=dict(sorted(grades.items())),
        relevant_per_query=total / labelled if labelled else 0.0,
        candidates_per_query=sum(map(len, split.candidates.values())) / len(split) if len(split) else 0.0,
        judged_at_10=float(np.mean(judged)) if judged else 0.0,
        relevant_listed=listed / total if total else 0.0,
        not_listed=total - listed,
        repeated_queries=sum(count for count in texts.values() if count > 1),
        relevant_copies=sum(_relevant_copies(data, split, query, keys) for query, keys in relevant.items()),
    )


def _relevant_copies(data: RankingData, split: Split, query: str, relevant: Sequence[str]) -> int:
    texts = {data.corpus[document].text_key for document in relevant}
    others = set(split.candidates[query]) - set(relevant)
    return sum(data.corpus[document].text_key in texts for document in others) if texts else 0


def _leaks(data: RankingData) -> list[Leak]:
    texts = {name: _by_text(data, split.candidates) for name, split in data.splits.items()}
    pairs = {name: _judged_pairs(data, split) for name, split in data.splits.items()}
    found = []
    for first, second in combinations(data.splits, 2):
        common = [key for text, keys in texts[second].items() if text in texts[first] for key in keys]
        same = len(pairs[first] & pairs[second])
        if common or same:
            found.append(Leak(splits=(first, second), queries=len(common), pairs=same, examples=common[:EXAMPLES]))
    return found


def _by_text(data: RankingData, queries: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for query in queries:
        found.setdefault(text_key(data.queries[query]), []).append(query)
    return found


def _judged_pairs(data: RankingData, split: Split) -> set[tuple[str, str]]:
    return {
        (text_key(data.queries[query]), data.corpus[document].text_key)
        for query in split.candidates
        for document in split.qrels.get(query, {})
    }


def sample_pairs(data: RankingData) -> list[tuple[str, str]]:
    """At most `SAMPLE` pairs of a query and a candidate, of queries in the order of a hash of their ids."""
    queries = [(query, documents) for split in data.splits.values() for query, documents in split.candidates.items()]
    queries.sort(key=lambda each: stable_hash(each[0]))
    return list(islice((pair for query, documents in queries for pair in data.pairs(query, documents)), SAMPLE))


def _truncation(data: RankingData, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Truncation:
    pairs = sample_pairs(data)
    encoded = encode_pairs(
        tokenizer, [query for query, _ in pairs], [document for _, document in pairs], return_length=True, verbose=False
    )
    tokens = [int(length) for length in encoded["length"]]
    return Truncation(
        max_length=max_length,
        pairs=len(pairs),
        tokens=_lengths(tokens),
        share=sum(length > max_length for length in tokens) / len(tokens),
    )
