"""The generated recommendation set follows its stated rules."""

from __future__ import annotations

from hfcompress.data.load import load_data
from hfcompress.data.recommend import USERS, load_recommend
from hfcompress.evaluation.metrics import first_stage_run, means, per_query
from hfcompress.recipe import DataStep


def test_it_follows_its_rules() -> None:
    data = load_data(DataStep(sets=["recommend"], max_queries={"train": 3, "dev": 2, "test": 150}), progress=False)
    assert data.pool and len(data.corpus) == 768
    split = data.splits["test"]
    for query, listed in split.candidates.items():
        assert len(listed) == len(set(listed)) == 20
        assert sum(split.qrels[query].values()) == 2 and set(split.qrels[query]) == set(listed)
        history = data.queries[query].split("; ")
        assert 4 <= len(history) <= 8
        assert not set(history) & {data.corpus[item].title for item in listed}
    found = means(per_query(split.qrels, first_stage_run(split.candidates)))["ndcg@10"]
    assert 0.3 < found < 0.7  # co-occurrence says something, and not all


def test_limits_take_users_away_and_change_no_other() -> None:
    limited = load_recommend({"train": 3, "dev": 2, "test": 5}, progress=False)
    more = load_recommend({"train": 4, "dev": 2, "test": 9}, progress=False)
    for name, split in limited.splits.items():
        for query, listed in split.candidates.items():
            assert more.splits[name].candidates[query] == listed
            assert more.queries[query] == limited.queries[query]
    assert len(limited.queries) == 10 < USERS
