"""Training lists and batches: sizes, negatives, draws of their own for each query, and cached scores."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hfcompress.data.document import Document
from hfcompress.data.lists import RankingCollator, training_lists, with_scores
from hfcompress.data.ranking import RankingData, Split
from hfcompress.errors import DataError

SIZE = 40
WORDS = ["query", "text", *(str(number) for number in range(SIZE))]


def example(queries: int = 8) -> RankingData:
    """Query n: relevant d(n) (grade 2), judged not relevant d(n+1), candidates d(n) to d(n+9)."""
    corpus = {f"d{number}": Document("", f"text {number}") for number in range(SIZE)}
    names = [f"q{number}" for number in range(queries)]
    qrels = {name: {f"d{number}": 2, f"d{number + 1}": 0} for number, name in enumerate(names)}
    candidates = {name: [f"d{number + step}" for step in range(10)] for number, name in enumerate(names)}
    texts = {name: f"query {number}" for number, name in enumerate(names)}
    return RankingData("lists", texts, corpus, {"train": Split(qrels, candidates)})


def with_split(qrels: dict[str, dict[str, int]], candidates: dict[str, list[str]]) -> RankingData:
    return replace(example(), splits={"train": Split(qrels, candidates)})


# Lists


@pytest.mark.parametrize(("documents", "random_negatives"), [(2, 0), (2, 1), (5, 2), (8, 2), (12, 3), (6, 20)])
def test_lists_have_the_size_asked_for_and_nothing_relevant_among_the_negatives(
    documents: int, random_negatives: int
) -> None:
    data = example()
    lists = training_lists(data, documents, random_negatives, seed=0)
    assert lists.column_names == ["query_id", "query", "document_ids", "documents", "labels"]
    assert lists["query_id"][:] == list(data.queries)
    for row in lists:
        number = int(row["query_id"][1:])
        assert row["query"] == f"query {number}"
        assert len(row["document_ids"]) == len(set(row["document_ids"])) == documents
        assert row["documents"] == [data.corpus[document].content for document in row["document_ids"]]
        assert row["document_ids"][0] == f"d{number}"
        assert row["labels"] == [2.0] + [0.0] * (documents - 1)


def test_hard_negatives_are_candidates_that_are_not_relevant() -> None:
    data = example()
    for row in training_lists(data, documents=6, random_negatives=2, seed=0):
        hard = row["document_ids"][1:4]
        assert set(hard) <= set(data.splits["train"].candidates[row["query_id"]]) - {row["document_ids"][0]}


def test_hard_negatives_are_drawn_from_all_candidates() -> None:
    rows = [training_lists(example(1), 3, 0, seed)[0] for seed in range(40)]
    assert {document for row in rows for document in row["document_ids"][1:]} == {f"d{n}" for n in range(1, 10)}


def test_random_negatives_come_from_the_whole_corpus() -> None:
    rows = [training_lists(example(1), 3, 2, seed)[0] for seed in range(60)]
    assert len({document for row in rows for document in row["document_ids"][1:]}) > 25


@pytest.mark.parametrize("candidates", [[], ["d0"], ["d0", "d5", "d6"]])
def test_few_candidates_are_filled_up_at_random(candidates: list[str]) -> None:
    row = training_lists(with_split({"q0": {"d0": 1}}, {"q0": candidates}), 7, 1, seed=0)[0]
    assert len(set(row["document_ids"])) == 7
    assert row["labels"] == [1.0] + [0.0] * 6
    assert set(candidates) <= set(row["document_ids"])


def test_relevant_documents_that_are_not_in_the_list_are_no_negatives() -> None:
    relevant = {f"d{number}": 1 for number in range(0, SIZE, 2)}
    candidates = {"q0": [f"d{number}" for number in range(10)]}
    for seed in range(10):
        row = training_lists(with_split({"q0": relevant}, candidates), 12, 6, seed)[0]
        assert row["document_ids"][0] in relevant
        assert not set(row["document_ids"][1:]) & set(relevant)


def test_several_relevant_documents() -> None:
    data = with_split({"q0": {"d0": 1, "d1": 3, "d2": 2}}, {"q0": [f"d{number}" for number in range(8)]})
    row = training_lists(data, 6, 1, seed=0, positives=2)[0]
    grades = {"d0": 1.0, "d1": 3.0, "d2": 2.0}
    assert row["labels"] == [grades.get(document, 0.0) for document in row["document_ids"]]
    assert [label > 0 for label in row["labels"]] == [True, True] + [False] * 4
    row = training_lists(data, 3, 0, seed=0, positives=9)[0]
    assert [label > 0 for label in row["labels"]] == [True, True, False]  # room for a negative is kept


def test_in_a_pool_hard_negatives_are_judged_documents() -> None:
    data = replace(
        with_split({"q0": {"d0": 1, "d1": 0, "d2": 0, "d3": 0}}, {"q0": ["d3", "d0", "d1", "d2"]}), pool=True
    )
    row = training_lists(data, 4, 0, seed=0)[0]
    assert sorted(row["document_ids"][1:]) == ["d1", "d2", "d3"]


def test_queries_without_a_relevant_document_are_left_out() -> None:
    data = with_split({"q0": {"d0": 0}, "q1": {"d1": 1}}, {"q0": ["d0"], "q1": ["d1"], "q2": ["d2"]})
    assert training_lists(data, 3, 1, seed=0)["query_id"][:] == ["q1"]


def test_unlabelled_queries_have_lists_of_candidates_without_labels() -> None:
    qrels = {"q0": {"d0": 1}, "q1": {"d3": 0}}
    candidates = {"q0": ["d0", "d5"], "q1": ["d3", "d4", "d6"], "q2": ["d7", "d8", "d9"], "q3": []}
    data = with_split(qrels, candidates)
    rows = training_lists(data, 5, 2, seed=0, unlabelled=True).to_list()
    assert [row["query_id"] for row in rows] == ["q0", "q1", "q2", "q3"]
    assert rows[0] == training_lists(data, 5, 2, seed=0)[0]
    for row in rows[1:]:
        assert row["labels"] == [0.0] * 5 and len(set(row["document_ids"])) == 5
    assert set(rows[1]["document_ids"]) >= {"d3", "d4", "d6"} and set(rows[2]["document_ids"]) >= {"d7", "d8", "d9"}
    none = with_split({}, candidates)
    assert len(training_lists(none, 5, 2, seed=0, unlabelled=True)) == 4
    with pytest.raises(DataError, match="no query with a relevant document"):
        training_lists(with_split({}, {}), 5, 2, seed=0, unlabelled=True)


def test_at_most_so_many_lists_which_are_the_first() -> None:
    everything = training_lists(example(), 6, 2, seed=0).to_list()
    assert training_lists(example(), 6, 2, seed=0, queries=3).to_list() == everything[:3]
    assert training_lists(example(), 6, 2, seed=0, queries=99).to_list() == everything
    data = with_split({"q0": {"d0": 0}, "q1": {"d1": 1}}, {"q0": ["d0"], "q1": ["d1"]})
    assert training_lists(data, 3, 1, seed=0, queries=1)["query_id"][:] == ["q1"]


def test_a_seed_gives_the_same_lists_and_another_seed_gives_others() -> None:
    first, again, other = (training_lists(example(), 6, 2, seed).to_list() for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_adding_queries_changes_no_other_list() -> None:
    few, many = training_lists(example(3), 6, 2, 0).to_list(), training_lists(example(8), 6, 2, 0).to_list()
    assert many[:3] == few


def test_the_order_of_queries_changes_no_list() -> None:
    data = example()
    split = data.splits["train"]
    turned = replace(data, splits={"train": Split(split.qrels, dict(reversed(split.candidates.items())))})
    assert training_lists(turned, 6, 2, 0).to_list() == training_lists(data, 6, 2, 0).to_list()[::-1]


def test_faults_of_the_data() -> None:
    with pytest.raises(DataError, match=r"no 'dev' split"):
        training_lists(example(), 4, 1, 0, split="dev")
    with pytest.raises(DataError, match=r"no query with a relevant document"):
        training_lists(with_split({"q0": {"d0": 0}}, {"q0": ["d0"]}), 4, 1, 0)
    with pytest.raises(
        DataError, match=rf"too small for lists of {SIZE} documents.*{SIZE} documents.*more than {SIZE}"
    ):
        training_lists(example(), SIZE, 1, 0)


def test_a_query_to_which_most_documents_are_relevant_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Limited(random.Random):
        draws = 0

        def choice(self, seq: Sequence[str]) -> str:
            self.draws += 1
            assert self.draws < 5000, "the draw does not end"
            return super().choice(seq)

    monkeypatch.setattr("hfcompress.data.lists.random.Random", Limited)
    relevant = {f"d{number}": 1 for number in range(SIZE - 2)}
    row = training_lists(with_split({"q0": relevant}, {"q0": ["d0", "d39"]}), 8, 2, seed=0)[0]
    assert row["document_ids"][0] in relevant
    assert set(row["document_ids"][1:]) == {"d38", "d39"}
    assert len(row["documents"]) == len(row["labels"]) == 3


# Scores


class FakeScorer:
    """Scores a pair by the numbers in its texts, so that every pair has a score of its own."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        self.calls.append(len(pairs))
        return np.array([100 * int(q.split()[1]) + int(d.split()[1]) for q, d in pairs], dtype=np.float32)


def expected_scores(row: dict) -> list[float]:
    return [100.0 * int(row["query_id"][1:]) + float(document[1:]) for document in row["document_ids"]]


def test_scores_belong_to_their_documents() -> None:
    data = example(25)
    lists = training_lists(data, 5, 2, seed=0)
    scorer = FakeScorer()
    scored = with_scores(lists, scorer, progress=False)
    assert scored.column_names == [*lists.column_names, "teacher_scores"]
    assert sum(scorer.calls) == 25 * 5
    for row in scored:
        assert row["teacher_scores"] == expected_scores(row)
    assert "teacher_scores" not in lists.column_names


def test_scores_of_lists_of_unequal_length_over_several_parts() -> None:
    rows = [
        {"query_id": f"q{n}", "query": f"query {n}", "document_ids": ids, "documents": [f"text {d[1:]}" for d in ids]}
        for n in range(150)
        for ids in [[f"d{document}" for document in range(1 + n % 4)]]
    ]
    scored = with_scores(Dataset.from_list(rows), FakeScorer(), column="other", progress=False)
    for row in scored:
        assert row["other"] == expected_scores(row)


class Interrupted(Exception):
    """Stands for Ctrl-C."""


class WeakScorer(FakeScorer):
    """Breaks off after some calls."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        if not self.left:
            raise Interrupted
        self.left -= 1
        return super().score(pairs)


def long_lists(queries: int = 150) -> Dataset:
    """More lists than one part of the cache holds."""
    data = example(30)
    rows = training_lists(data, 5, 2, seed=0).to_list()
    return Dataset.from_list([{**rows[number % 30], "number": number} for number in range(queries)])


def test_interrupted_scoring_goes_on_where_it_stopped(tmp_path: Path) -> None:
    lists = long_lists()
    with pytest.raises(Interrupted):
        with_scores(lists, WeakScorer(2), progress=False, cache=tmp_path, fingerprint="a teacher")
    again = FakeScorer()
    scored = with_scores(lists, again, progress=False, cache=tmp_path, fingerprint="a teacher")
    assert again.calls == [(150 - 2 * 64) * 5]
    assert scored["teacher_scores"][:] == with_scores(lists, FakeScorer(), progress=False)["teacher_scores"][:]
    with_scores(lists, WeakScorer(0), progress=False, cache=tmp_path, fingerprint="a teacher")
    assert all(path.suffix == ".safetensors" for path in tmp_path.iterdir())


def test_cached_scores_serve_only_the_same_teacher_and_texts(tmp_path: Path) -> None:
    lists = long_lists(10)
    with_scores(lists, FakeScorer(), progress=False, cache=tmp_path, fingerprint="a teacher")
    with pytest.raises(Interrupted):
        with_scores(lists, WeakScorer(0), progress=False, cache=tmp_path, fingerprint="another teacher")
    changed = lists.map(lambda row: {"query": row["query"] + " 0"})
    with pytest.raises(Interrupted):
        with_scores(changed, WeakScorer(0), progress=False, cache=tmp_path, fingerprint="a teacher")
    with pytest.raises(DataError, match="fingerprint"):
        with_scores(lists, FakeScorer(), progress=False, cache=tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_teacher_whose_scores_are_no_numbers(tmp_path: Path, value: float) -> None:
    class Broken(FakeScorer):
        def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
            scores = super().score(pairs)
            scores[3] = value
            return scores

    with pytest.raises(DataError, match=r"1 of 50 pairs.*NaN or infinite.*(nan|inf) for 'query 0'"):
        with_scores(long_lists(10), Broken(), progress=False, cache=tmp_path, fingerprint="a teacher")
    assert not list(tmp_path.iterdir())


# Batches


@pytest.fixture(scope="module")
def word_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def row_of(query: str, documents: list[str], labels: list[float], scores: list[float] | None = None) -> dict:
    row = {"query_id": "x", "query": query, "document_ids": documents, "documents": documents, "labels": labels}
    return row if scores is None else {**row, "teacher_scores": scores}


def test_batch_of_lists_of_unequal_length(word_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [
        row_of("query 1", ["text 1", "text"], [1.0, 0.0], [0.5, -0.5]),
        row_of("query 2", ["text 2", "text 3", "text 4 5"], [0.0, 3.0, 0.0], [1.5, 2.5, 3.5]),
        row_of("query", ["7"], [1.0], [9.0]),
    ]
    batch = RankingCollator(word_tokenizer, 32)(rows)
    assert set(word_tokenizer.model_input_names) | {"labels", "list_mask", "teacher_scores"} == set(batch)
    assert batch["input_ids"].shape == (6, 8)  # real pairs only, padded to the longest pair
    texts = word_tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    pairs = ["query 1 text 1", "query 1 text", "query 2 text 2", "query 2 text 3", "query 2 text 4 5", "query 7"]
    assert texts == pairs
    assert batch["attention_mask"].sum(1).tolist() == [7, 6, 7, 7, 8, 5]
    assert batch["token_type_ids"][0].tolist() == [0, 0, 0, 0, 1, 1, 1, 0]
    assert batch["list_mask"].tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert batch["labels"].tolist() == [[1, 0, 0], [0, 3, 0], [1, 0, 0]]
    assert batch["teacher_scores"].tolist() == [[0.5, -0.5, 0], [1.5, 2.5, 3.5], [9, 0, 0]]
    assert batch["labels"].dtype == batch["teacher_scores"].dtype == torch.float32
    assert int(batch["list_mask"].sum()) == len(batch["input_ids"])


def test_batch_without_teacher_scores(word_tokenizer: PreTrainedTokenizerFast) -> None:
    batch = RankingCollator(word_tokenizer, 32)([row_of("query", ["text"], [1.0])])
    assert "teacher_scores" not in batch and batch["labels"].tolist() == [[1.0]]


def test_long_pairs_are_cut_the_longer_text_first(word_tokenizer: PreTrainedTokenizerFast) -> None:
    batch = RankingCollator(word_tokenizer, 8)([row_of("query 1", ["text 1 2 3 4 5 6 7 8 9"], [1.0])])
    assert batch["input_ids"].shape == (1, 8)
    assert word_tokenizer.decode(batch["input_ids"][0]) == "[CLS] query 1 [SEP] text 1 2 [SEP]"


def test_collating_a_scored_dataset(word_tokenizer: PreTrainedTokenizerFast) -> None:
    lists = with_scores(training_lists(example(), 4, 1, seed=0), FakeScorer(), progress=False)
    batch = RankingCollator(word_tokenizer, 32)([lists[index] for index in (2, 0)])
    assert batch["input_ids"].shape[0] == 8
    assert batch["teacher_scores"].tolist() == [expected_scores(lists[2]), expected_scores(lists[0])]
