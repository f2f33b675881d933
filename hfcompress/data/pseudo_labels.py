"""Pseudo-labels: relevance grades from the ranking of a teacher, for data without judgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hfcompress.data.ranking import RankingData, Split

GRADES = 10
NOTE = (
    "no judgements: the teacher's first 10 candidates of a query are graded 10 to 1, so that nDCG@10 measures how far "
    "its order is kept, and MRR@10 the rank of its best document; how well the teacher itself ranks is unknown"
)


def unlabelled_splits(data: RankingData) -> list[str]:
    """Return the names of the non-empty dev and test splits if none of them has a label, else an empty list."""
    splits = [name for name in ("dev", "test") if data.splits.get(name)]
    return [] if any(data.splits[name].labelled for name in splits) else splits


def with_pseudo_labels(data: RankingData, scores: Mapping[str, Mapping[str, Sequence[float]]]) -> RankingData:
    """Grade the candidates of some splits by their rank under a ranker.

    The first candidate gets grade 10, the tenth 1, all others 0; ties keep the order of the candidates. Binary metrics
    count only the first as relevant.

    Args:
        data: The data.
        scores: Scores of the ranker, `{split: {query id: [score of each candidate]}}`.
    """
    splits = dict(data.splits)
    for name, by_query in scores.items():
        qrels = {}
        for query, documents in splits[name].candidates.items():
            values = by_query[query]
            order = sorted(range(len(documents)), key=lambda index: -values[index])
            qrels[query] = {documents[index]: max(0, GRADES - rank) for rank, index in enumerate(order)}
        splits[name] = Split(qrels, splits[name].candidates)
    return replace(data, splits=splits, relevant_from=GRADES, notes=(*data.notes, NOTE))
