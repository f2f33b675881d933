"""From a reader's draft to ranking data: missing splits, limits and candidates."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset

from hfcompress.data.columns import read_columns
from hfcompress.data.document import Document
from hfcompress.data.draft import ALL, Draft, finish
from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError


def table(*rows: dict[str, Any]) -> Dataset:
    return Dataset.from_list(list(rows))


def animals(count: int = 60) -> Dataset:
    return table(
        *(
            {"query": f"question {number}", "positive": f"answer number {number}", "negative": f"nothing {number}"}
            for number in range(count)
        )
    )


def finished(draft: Draft, **changes: Any) -> RankingData:
    return finish(draft, **{"limits": {}, "candidates": 5, "seed": 0, **changes})


def test_own_split_names_and_what_is_cut_from_train() -> None:
    tables = {"train": animals(), "test": table({"query": "q", "positive": "b", "negative": "c"})}
    data = finished(read_columns("x", tables))
    assert len(data.splits["test"]) == 1
    assert 1 <= len(data.splits["dev"]) <= 15 and len(data.splits["dev"]) + len(data.splits["train"]) == 60
    assert any("dev cut from the other queries" in note for note in data.notes)


def test_a_hash_split_keeps_equal_queries_together_and_follows_the_seed() -> None:
    first = finished(read_columns("x", {"whatever": animals()}))
    again = finished(read_columns("x", {"whatever": animals(40)}))
    for split in first.splits:
        assert set(again.splits[split].candidates) <= set(first.splits[split].candidates)
    other = finished(read_columns("x", {"whatever": animals()}), seed=1)
    assert set(other.splits["test"].candidates) != set(first.splits["test"].candidates)


def test_test_alone_stays_whole() -> None:
    data = finished(read_columns("x", {"test": animals(10)}))
    assert {name: len(split) for name, split in data.splits.items()} == {"test": 10}


def test_negatives_come_first_in_train_and_not_elsewhere() -> None:
    data = finished(read_columns("x", {"train": animals(), "dev": animals(5), "test": animals(5)}))
    query, listed = next(iter(data.splits["train"].candidates.items()))
    number = data.queries[query].split()[1]
    assert data.corpus[listed[0]].text == f"nothing {number}"
    assert data.splits["train"].qrels[query][listed[0]] == 0
    assert all(len(listed) <= 6 for listed in data.splits["test"].candidates.values())


def test_lists_are_pools_in_the_order_of_bm25() -> None:
    rows = [{"query": "cats sleep", "docs": ["dogs bark", "fish swim", "cats sleep long"], "labels": [1, 0, 0]}]
    data = finished(read_columns("x", {"test": table(*rows)}))
    (listed,) = data.splits["test"].candidates.values()
    assert data.pool and len(listed) == 3
    assert data.corpus[listed[0]].text == "cats sleep long"


def test_limits_come_before_retrieval() -> None:
    data = finished(read_columns("x", {"train": animals()}), limits={"train": 7, "dev": 1, "test": 2})
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 7, "dev": 1, "test": 2}


def test_unlabelled_queries_alone_are_split() -> None:
    draft = read_columns("x", {"all": table({"query": "q", "positive": "b"})})
    draft.qrels.clear()
    draft.queries |= {f"q{number}": f"question {number}" for number in range(40)}
    with pytest.raises(DataError, match="is empty"):
        finished(draft)
    data = finished(draft, unlabelled=True)
    assert sorted(data.splits) == ["dev", "test", "train"]
    assert not any(split.labelled for split in data.splits.values())


def test_unlabelled_queries_stay_in_train_beside_judged_ones() -> None:
    draft = read_columns("x", {"all": animals()})
    judged = set(draft.queries)
    draft.queries |= {f"more {number}": f"other question {number}" for number in range(40)}
    data = finished(draft, unlabelled=True)
    assert set(data.splits["dev"].candidates) | set(data.splits["test"].candidates) <= judged
    assert len(data.splits["dev"]) and len(data.splits["test"]) and set(data.splits["train"].candidates) - judged
    assert sum(map(len, data.splits.values())) == len(judged) + 40


def test_a_missing_split_is_not_cut_from_unlabelled_queries_alone() -> None:
    draft = read_columns("x", {"test": animals()})
    draft.queries |= {f"more {number}": f"other question {number}" for number in range(40)}
    data = finished(draft, unlabelled=True)
    assert sorted(data.splits) == ["test", "train"] and len(data.splits["train"]) == 40
    assert not any("cut from" in note for note in data.notes)


def test_nothing_to_read() -> None:
    with pytest.raises(DataError, match="'x' is empty"):
        finished(Draft("x"))


def test_a_run_for_all_splits_serves_those_that_are_cut() -> None:
    draft = Draft("x", corpus={"d": Document("", "text")}, queries={f"q{n}": f"text {n}" for n in range(30)})
    draft.qrels[ALL] = {query: {"d": 1} for query in draft.queries}
    draft.candidates[ALL] = {query: ["d"] for query in draft.queries}
    data = finish(draft, {}, 5, 0)
    assert len(data.splits) == 3
    assert all(listed == ["d"] for split in data.splits.values() for listed in split.candidates.values())


def prepared(**changes: Any) -> Draft:
    """Two train and two dev queries over four documents, each with one relevant document."""
    names = "abcd"
    return Draft(
        "x",
        queries={name: f"word{name}" for name in names},
        corpus={name: Document("", f"word{name} other") for name in names},
        qrels={"train": {"a": {"a": 1, "b": 0}, "b": {"b": 1}}, "dev": {"c": {"c": 1, "a": 0}, "d": {"d": 2}}},
        prepared=True,
        **changes,
    )


def test_prepared_drafts_keep_splits_first_stage_and_settings() -> None:
    data = finished(prepared(first_stage="a run", relevant_from=2, publish_texts=True), candidates=2)
    assert list(data.splits) == ["train", "dev"] and data.notes == ()
    assert (data.first_stage, data.relevant_from, data.publish_texts) == ("a run", 2, True)
    assert all(listed[0] == query for split in data.splits.values() for query, listed in split.candidates.items())


def test_prepared_candidates_keep_their_order_and_only_missing_ones_are_retrieved() -> None:
    given = {"train": {"a": ["d", "c", "b"], "b": []}, "dev": {"c": ["a", "b", "c"]}}
    data = finished(prepared(candidates=given), candidates=1)
    assert data.splits["train"].candidates == {"a": ["d"], "b": []}
    assert data.splits["dev"].candidates == {"c": ["a"], "d": ["d"]}
    whole = finished(prepared(candidates=given), candidates=1, truncate=False)
    assert whole.splits["train"].candidates["a"] == ["d", "c", "b"]
    pool = finished(prepared(candidates=given, pool=True), candidates=1)
    assert pool.splits["dev"].candidates == {"c": ["a", "b", "c"], "d": ["d"]}


def test_prepared_queries_without_judgements_join_train_or_are_split_where_nothing_is_judged() -> None:
    draft = prepared()
    draft.queries["e"] = "worda"
    assert list(finished(draft, unlabelled=True).splits["train"].candidates) == ["a", "b", "e"]
    draft = prepared()
    draft.qrels = {}
    draft.queries |= {f"q{number}": f"question {number}" for number in range(40)}
    draft.candidates = {ALL: {"q1": ["d", "c"]}}
    data = finished(draft, unlabelled=True)
    assert list(data.splits) == ["train", "dev", "test"] and data.notes == ()
    listed = {query: found for split in data.splits.values() for query, found in split.candidates.items()}
    assert len(listed) == 44 and listed["q1"] == ["d", "c"] and listed["a"][0] == "a"
