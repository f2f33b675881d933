"""Explain a difference in quality: which queries moved, where to, and what kind of queries lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import sem
from transformers import PreTrainedTokenizerFast

from hfcompress.data.ranking import RankingData, Split
from hfcompress.evaluation.explanation import Explanation, MovedQuery, QueryGroup, RelevantDocument
from hfcompress.evaluation.metrics import Run, ranking
from hfcompress.evaluation.report import Artifact

SHOWN_DOCUMENTS = 5
SHOWN_CHARACTERS = 160
LENGTH_GROUPS = 4
RELEVANT_BOUNDS = (1, 2, 3, 6, 11)  # the first number of each group: 1, 2, 3 to 5, 6 to 10, 11 and more


def headline(artifacts: Sequence[Artifact]) -> Artifact | None:
    """The artefact that speaks for a run: the fastest non-inferior one, else the one that came closest.

    Closest is the one whose interval has the highest lower end, which is what decides first. None if no artefact was
    compared with the teacher.
    """
    compared = [(artifact, artifact.delta) for artifact in artifacts if artifact.delta]
    passed = [artifact for artifact, delta in compared if delta.decision == "non-inferior"]
    if passed:
        return max(passed, key=lambda artifact: artifact.speedup)
    return max(compared, key=lambda pair: pair[1].ci_low, default=(None, None))[0]


def moves(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """Queries that lost and queries that gained, the largest change first, equal ones by id.

    Args:
        before: Metric of each query.
        after: The same of another ranker; queries that only one of the two has do not count.
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
    tokenizer: PreTrainedTokenizerFast,
    max_length: int,
    shown: int,
) -> Explanation | None:
    """Explain the headline artefact's difference to the teacher.

    Args:
        data: The data.
        split: The split that was measured.
        runs: Scores by name of the artefact.
        artifacts: What was measured; the teacher first.
        tokenizer: The teacher's, which lengths are counted with.
        max_length: Longest input in tokens.
        shown: Queries to look at on either side.

    Returns:
        None where nothing was compared.
    """
    teacher, subject = artifacts[0], headline(artifacts[1:])
    if subject is None:
        return None
    chosen = data.split(split)
    before, after = teacher.per_query, subject.per_query
    losses, gains = moves(before, after)
    look = _Look(data, chosen, runs[teacher.name], runs[subject.name], tokenizer, max_length)
    lengths = dict(zip(before, look.query_tokens(list(before)), strict=True))
    relevant = {query: len(_relevant(chosen, query, data.relevant_from)) for query in before}
    return Explanation(
        artifact=subject.name,
        moved=[look.at(query, before[query], after[query]) for query in (*losses[:shown], *gains[:shown])],
        by_query_length=_groups(lengths, before, after, _length_bounds(list(lengths.values()))),
        by_relevant=_groups(relevant, before, after, RELEVANT_BOUNDS),
    )


class _Look:
    """Looks at single queries of two runs."""

    def __init__(
        self,
        data: RankingData,
        split: Split,
        teacher: Run,
        artifact: Run,
        tokenizer: PreTrainedTokenizerFast,
        max_length: int,
    ):
        self.data, self.split, self.teacher, self.artifact = data, split, teacher, artifact
        self.tokenizer, self.max_length = tokenizer, max_length

    def query_tokens(self, queries: list[str]) -> list[int]:
        """Lengths of queries, special tokens left out."""
        encoded = self.tokenizer([self.data.queries[query] for query in queries], add_special_tokens=False)
        return [len(ids) for ids in encoded["input_ids"]]

    def at(self, query: str, before: float, after: float) -> MovedQuery:
        """One query with its relevant documents."""
        ranked, moved = (
            {document: rank for rank, document in enumerate(ranking(run[query]), 1)}
            for run in (self.teacher, self.artifact)
        )
        grades = _relevant(self.split, query, self.data.relevant_from)
        found = sorted(grades.keys() & ranked.keys(), key=lambda document: (-grades[document], ranked[document]))
        documents = found[:SHOWN_DOCUMENTS]
        pairs = self.data.pairs(query, documents)
        texts = [text for _, text in pairs]
        lengths = [len(self.tokenizer(*pair, verbose=False)["input_ids"]) for pair in pairs]
        return MovedQuery(
            query=query,
            teacher=before,
            artifact=after,
            tokens=self.query_tokens([query])[0],
            candidates=len(ranked),
            documents=[
                RelevantDocument(
                    document=document,
                    grade=grades[document],
                    teacher_rank=ranked[document],
                    artifact_rank=moved[document],
                    tokens=length,
                    truncated=length > self.max_length,
                    text=_beginning(text) if self.data.publish_texts else None,
                )
                for document, length, text in zip(documents, lengths, texts, strict=True)
            ],
            text=_beginning(self.data.queries[query]) if self.data.publish_texts else None,
        )


def _relevant(split: Split, query: str, relevant_from: int) -> dict[str, int]:
    """Grades of the relevant documents of a query; of all with a gain where none is relevant by the threshold."""
    grades = {document: grade for document, grade in split.qrels.get(query, {}).items() if grade > 0}
    return {document: grade for document, grade in grades.items() if grade >= relevant_from} or grades


def _length_bounds(values: list[int]) -> tuple[int, ...]:
    """The first value of each group, so that groups are about as large as each other."""
    cuts = np.quantile(values, np.arange(LENGTH_GROUPS) / LENGTH_GROUPS, method="higher")
    return tuple(sorted({int(cut) for cut in cuts}))


def _groups(
    values: Mapping[str, int], before: Mapping[str, float], after: Mapping[str, float], bounds: Sequence[int]
) -> list[QueryGroup]:
    groups = []
    for low, high in zip(bounds, [*bounds[1:], max(values.values(), default=0) + 1], strict=True):
        queries = [query for query in before if query in after and low <= values[query] < high]
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


def _beginning(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 3].rstrip()}..."
