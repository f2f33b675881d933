"""Explanations: which queries moved and where their relevant documents went, and what kinds of queries lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from explanation_samples import ARTIFACTS, DATA, STUDENT, TEACHER
from report_samples import example_artifact, example_delta
from scipy.stats import sem
from transformers import BertTokenizerFast

from hfcompress.evaluation.explain import changed_queries, explain, primary_artifact


def test_changed_queries_are_ordered_by_size_and_then_by_id() -> None:
    before = {"a": 1.0, "b": 0.5, "c": 0.5, "d": 0.2, "e": 0.3, "only before": 1.0}
    after = {"a": 0.1, "b": 0.4, "c": 0.4, "d": 0.2, "e": 0.9, "only after": 0.0}
    assert changed_queries(before, after) == (["a", "b", "c"], ["e"])


def test_the_primary_artifact_is_the_fastest_that_passed() -> None:
    slow, fast = (example_artifact(name, "torch", speed, example_delta(0.0, "non-inferior")) for name, speed in
                  (("slow", 2.0), ("fast", 3.0)))  # fmt: skip
    faster = example_artifact("faster", "torch", 9.0, example_delta(-0.1, "inferior"))
    assert primary_artifact([slow, fast, faster]) is fast
    assert primary_artifact([faster]) is faster
    assert primary_artifact([]) is None


def test_ranks_lengths_and_texts_of_moved_queries(tokenizer: BertTokenizerFast) -> None:
    runs = {"teacher": TEACHER, "student": STUDENT}
    found = explain(DATA, "test", runs, ARTIFACTS, tokenizer=tokenizer, max_length=8, queries=5)
    assert found is not None and found.artifact == "student"
    lost, gained = found.moved
    assert (lost.query, lost.teacher, lost.candidates, lost.tokens, lost.text) == ("a", 1.0, 4, 2, "ba de")
    assert lost.artifact == pytest.approx((2 / np.log2(4) + 1 / np.log2(5)) / (2 + 1 / np.log2(3)))
    assert [(each.document, each.grade, each.teacher_rank, each.artifact_rank) for each in lost.documents] == [
        ("d5", 2, 1, 3),
        ("d0", 1, 2, 4),
    ]
    # Two words, six words and three special tokens; the other document has one word.
    assert [(each.tokens, each.truncated) for each in lost.documents] == [(11, True), (6, False)]
    assert lost.documents[0].text == "sun sun sun sun sun sun"
    assert (gained.query, gained.documents[0].teacher_rank, gained.documents[0].artifact_rank) == ("b", 2, 1)
    assert found.steady_saliency is None and lost.saliency is None


def test_texts_are_left_out_where_the_licence_does_not_allow_them(tokenizer: BertTokenizerFast) -> None:
    runs = {"teacher": TEACHER, "student": STUDENT}
    closed = replace(DATA, publish_texts=False)
    found = explain(closed, "test", runs, ARTIFACTS, tokenizer=tokenizer, max_length=32, queries=1)
    assert found is not None
    assert all(query.text is None and query.documents[0].text is None for query in found.moved)
    assert "sun" not in found.model_dump_json()


def test_groups_hold_every_query_once(tokenizer: BertTokenizerFast) -> None:
    runs = {"teacher": TEACHER, "student": STUDENT}
    found = explain(DATA, "test", runs, ARTIFACTS, tokenizer=tokenizer, max_length=32, queries=1)
    assert found is not None
    before, after = (artifact.per_query for artifact in ARTIFACTS)
    assert [(group.least, group.most, group.queries) for group in found.by_query_length] == [
        (1, 1, 2), (2, 2, 1), (3, 3, 1),
    ]  # fmt: skip
    one, two = found.by_relevant
    assert (one.least, one.most, one.queries, two.least, two.most, two.queries) == (1, 1, 3, 2, 2, 1)
    differences = [after[query] - before[query] for query in "bcd"]
    assert one.difference == pytest.approx(np.mean(differences))
    assert one.standard_error == pytest.approx(sem(differences)) and two.standard_error is None
    assert one.teacher == pytest.approx(np.mean([before[query] for query in "bcd"]))


def test_groups_by_length_of_the_relevant_documents(tokenizer: BertTokenizerFast) -> None:
    """Pairs of 8 tokens: a has documents of 1 and 6 words, so pairs of 6 and 11, median 8; b of 6; c of 9."""
    runs = {"teacher": TEACHER, "student": STUDENT}
    found = explain(DATA, "test", runs, ARTIFACTS, tokenizer=tokenizer, max_length=8, queries=1)
    assert found is not None
    assert [(each.least, each.most, each.queries) for each in found.by_document_length] == [(6, 8, 2), (9, 9, 1)]
    found = explain(DATA, "test", runs, ARTIFACTS, tokenizer=tokenizer, max_length=4, queries=1, chunks=True)
    assert found is not None
    assert [(each.least, each.most, each.queries) for each in found.by_document_length] == [(6, 8, 2), (9, 9, 1)]
    assert not any(document.truncated for query in found.moved for document in query.documents)


def test_nothing_is_explained_where_nothing_was_compared(tokenizer: BertTokenizerFast) -> None:
    assert (
        explain(DATA, "test", {"teacher": TEACHER}, ARTIFACTS[:1], tokenizer=tokenizer, max_length=32, queries=5)
        is None
    )
