"""Judgements made from a ranker's own order, where nobody has judged anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hfcompress.data.ranking import RankingData, Split

GRADES = 10
NOTE = (
    "no judgements: the teacher's first 10 candidates of a query are graded 10 to 1, so that nDCG@10 says how far its "
    "order is kept, and MRR@10 where its best document is; how well it ranks itself is not known"
)


def unjudged(data: RankingData) -> list[str]:
    """Dev and test, as far as there are such, where neither has a label; else nothing."""
    splits = [name for name in ("dev", "test") if name in data.splits and len(data.splits[name])]
    return [] if any(data.splits[name].labelled for name in splits) else splits


def graded_by_order(data: RankingData, scores: Mapping[str, Mapping[str, Sequence[float]]]) -> RankingData:
    """Grade the candidates of some splits by the order in which a ranker puts them.

    The first gets grade 10, the tenth 1, all others 0; equal scores keep the order of the candidates. Binary metrics
    count the first alone as relevant.

    Args:
        data: The data.
        scores: `{split: {query id: [score of each candidate]}}`.
    """
    splits = dict(data.splits)
    for name, by_query in scores.items():
        qrels = {}
        for query, documents in splits[name].candidates.items():
            values = by_query[query]
            order = sorted(range(len(documents)), key=lambda place: -values[place])
            qrels[query] = {documents[place]: max(0, GRADES - rank) for rank, place in enumerate(order)}
        splits[name] = Split(qrels, splits[name].candidates)
    return replace(data, splits=splits, relevant_from=GRADES, notes=(*data.notes, NOTE))
