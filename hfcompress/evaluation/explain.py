"""Explain a difference in quality: queries that changed, ranks of their relevant documents, and groups of queries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import sem
from transformers import PreTrainedTokenizerFast

from hfcompress.data.ranking import RankingData, Split
from hfcompress.evaluation.metrics import Run, ranking
from hfcompress.models.prompts import encode_pairs
from hfcompress.report.explanation import Explanation, MovedQuery, QueryGroup, RelevantDocument
from hfcompress.report.report import Artifact

MAX_DOCUMENTS = 5  # of a query
MAX_CHARACTERS = 160  # of a text
LENGTH_GROUPS = 4
RELEVANT_BOUNDS = (1, 2, 3, 6, 11)  # smallest number of each group: 1, 2, 3 to 5, 6 to 10, 11 and more


def primary_artifact(artifacts: Sequence[Artifact], sequence: Sequence[str] = ()) -> Artifact | None:
    """The artifact that represents a run: the one to deploy, which was tested first.

    Without a sequence, as in older reports, it is the fastest non-inferior artifact, else the one with the highest
    lower end of the interval. None if no artifact was compared with the teacher.

    Args:
        artifacts: Artifacts of the run.
        sequence: Names of the artifacts in the order in which they were tested.
    """
    if sequence:
        return next((artifact for artifact in artifacts if artifact.name == sequence[0]), None)
    compared = [(artifact, artifact.delta) for artifact in artifacts if artifact.delta]
    passed = [artifact for artifact, delta in compared if delta.decision == "non-inferior"]
    if passed:
        return max(passed, key=lambda artifact: artifact.speedup)
    return max(compared, key=lambda pair: pair[1].ci_low, default=(None, None))[0]


def changed_queries(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """Queries that lost and queries that gained, the largest change first, ties by id.

    Args:
        before: Metric of each query.
        after: Metric of each query by another ranker; queries that only one of the two has are ignored.
    """
    change = {query: after[query] - before[query] for query in before.keys() & after.keys()}
    losses = sorted((query for query in change if change[query] < 0), key=lambda query: (change[query], query))
    gains = sorted((query for query in change if change[query] > 0), key=lambda query: (-change[query], query))
    return losses, gains


def explain(
    data: RankingData,
    split: str,
    runs: Mapping[str, Run],
    artifacts: Sequence[Artifact],
    *,
    tokenizer: PreTrainedTokenizerFast,
    max_length: int,
    queries: int,
    sequence: Sequence[str] = (),
    chunks: bool = False,
) -> Explanation | None:
    """Explain the difference between the primary artifact and the teacher.

    Args:
        data: The data.
        split: The evaluated split.
        runs: Scores by name of the artifact.
        artifacts: Evaluated artifacts, the teacher first.
        tokenizer: The teacher's tokenizer, for lengths of texts.
        max_length: Longest input in tokens.
        queries: Largest number of queries that lost, and of queries that gained.
        sequence: Names of the artifacts in the order in which they were tested.
        chunks: Whether documents that do not fit into one input were read in chunks.

    Returns:
        None if no artifact was compared with the teacher.
    """
    teacher, artifact = artifacts[0], primary_artifact(artifacts[1:], sequence)
    if artifact is None:
        return None
    chosen = data.split(split)
    before, after = teacher.per_query, artifact.per_query
    losses, gains = changed_queries(before, after)
    explainer = _QueryExplainer(data, chosen, runs[teacher.name], runs[artifact.name], tokenizer, max_length, chunks)
    lengths = dict(zip(before, explainer.query_tokens(list(before)), strict=True))
    relevant = {query: len(_relevant(chosen, query, data.relevant_from)) for query in before}
    shown = (*losses[:queries], *gains[:queries])
    return Explanation(
        artifact=artifact.name,
        moved=[explainer.explain(query, before[query], after[query]) for query in shown],
        by_query_length=_groups(lengths, before, after, _length_bounds(list(lengths.values()))),
        by_relevant=_groups(relevant, before, after, RELEVANT_BOUNDS),
        by_document_length=_groups(
            explainer.document_tokens(list(before)), before, after, (0, max_length + 1, 2 * max_length + 1)
        ),
    )


@dataclass(frozen=True)
class _QueryExplainer:
    """Compares two runs on single queries."""

    data: RankingData
    split: Split
    teacher: Run
    artifact: Run
    tokenizer: PreTrainedTokenizerFast
    max_length: int
    chunks: bool

    def query_tokens(self, queries: list[str]) -> list[int]:
        """Lengths of queries without special tokens."""
        encoded = self.tokenizer([self.data.queries[query] for query in queries], add_special_tokens=False)
        return [len(ids) for ids in encoded["input_ids"]]

    def document_tokens(self, queries: list[str]) -> dict[str, int]:
        """Median length of the relevant candidates of each query that has some, with query and special tokens."""
        relevant = {}
        for query in queries:
            grades = _relevant(self.split, query, self.data.relevant_from)
            relevant[query] = [document for document in self.split.candidates.get(query, []) if document in grades]
        pairs = [pair for query, documents in relevant.items() for pair in self.data.pairs(query, documents)]
        lengths = iter(self._lengths(pairs))
        return {
            query: int(np.median([next(lengths) for _ in documents]))
            for query, documents in relevant.items()
            if documents
        }

    def _lengths(self, pairs: list[tuple[str, str]]) -> list[int]:
        """Tokens of pairs, without truncation."""
        if not pairs:
            return []
        encoded = encode_pairs(self.tokenizer, *map(list, zip(*pairs, strict=True)), verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    def explain(self, query: str, before: float, after: float) -> MovedQuery:
        """One query with its relevant documents."""
        teacher_ranks, artifact_ranks = (
            {document: rank for rank, document in enumerate(ranking(run[query]), 1)}
            for run in (self.teacher, self.artifact)
        )
        grades = _relevant(self.split, query, self.data.relevant_from)
        documents = sorted(
            grades.keys() & teacher_ranks.keys(), key=lambda document: (-grades[document], teacher_ranks[document])
        )[:MAX_DOCUMENTS]
        pairs = self.data.pairs(query, documents)
        lengths = self._lengths(pairs)
        return MovedQuery(
            query=query,
            teacher=before,
            artifact=after,
            tokens=self.query_tokens([query])[0],
            candidates=len(teacher_ranks),
            documents=[
                RelevantDocument(
                    document=document,
                    grade=grades[document],
                    teacher_rank=teacher_ranks[document],
                    artifact_rank=artifact_ranks[document],
                    tokens=length,
                    truncated=length > self.max_length and not self.chunks,
                    text=self._published(text),
                )
                for document, length, (_, text) in zip(documents, lengths, pairs, strict=True)
            ],
            text=self._published(self.data.queries[query]),
        )

    def _published(self, text: str) -> str | None:
        """The beginning of a text; None if texts of the data may not be published."""
        if not self.data.publish_texts:
            return None
        line = " ".join(text.split())
        return line if len(line) <= MAX_CHARACTERS else f"{line[: MAX_CHARACTERS - 3].rstrip()}..."


def _relevant(split: Split, query: str, relevant_from: int) -> dict[str, int]:
    """Grades of the relevant documents of a query; if none reaches the threshold, of all with a grade above 0."""
    grades = {document: grade for document, grade in split.qrels.get(query, {}).items() if grade > 0}
    return {document: grade for document, grade in grades.items() if grade >= relevant_from} or grades


def _length_bounds(values: list[int]) -> tuple[int, ...]:
    """The smallest value of each group, for groups of about equal size."""
    cuts = np.quantile(values, np.arange(LENGTH_GROUPS) / LENGTH_GROUPS, method="higher")
    return tuple(sorted({int(cut) for cut in cuts}))


def _groups(
    values: Mapping[str, int], before: Mapping[str, float], after: Mapping[str, float], bounds: Sequence[int]
) -> list[QueryGroup]:
    groups = []
    for low, high in zip(bounds, [*bounds[1:], math.inf], strict=True):
        queries = [query for query in before if query in after and query in values and low <= values[query] < high]
        if not queries:
            continue
        differences = np.array([after[query] - before[query] for query in queries])
        groups.append(
            QueryGroup(
                least=min(values[query] for query in queries),
                most=max(values[query] for query in queries),
                queries=len(queries),
                teacher=float(np.mean([before[query] for query in queries])),
                difference=float(differences.mean()),
                standard_error=float(sem(differences)) if len(queries) > 1 else None,
            )
        )
    return groups
