"""What `hfcompress data check` finds in data with known faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from transformers import BertTokenizerFast

from hfcompress.data.document import Document
from hfcompress.data.ranking import RankingData, Split
from hfcompress.data.statistics import dataset_statistics
from hfcompress.evaluation.power import queries_needed
from hfcompress.evaluation.significance import compare

CORPUS = {
    "d1": Document("", "ba be bi"),
    "d2": Document("", "ba be bi"),
    "d3": Document("", "da de di do du"),
    "d4": Document("Title", "fa"),
}
QUERIES = {"q1": "ba", "q2": " BA ", "q3": "da", "q4": "fa", "q5": "du", "q6": "nobody"}


@pytest.fixture
def faulty() -> RankingData:
    return RankingData(
        "faulty",
        QUERIES,
        CORPUS,
        {
            "train": Split({"q1": {"d1": 1}, "q3": {"d3": 2, "d1": 0}}, {"q1": ["d3", "d1"], "q3": ["d1", "d2"]}),
            "test": Split(
                {"q2": {"d2": 1}, "q4": {"d4": 1, "d3": 0}, "q5": {"d1": 0}},
                {"q2": ["d2", "d3"], "q4": ["d3", "d4"], "q5": ["d1"]},
            ),
        },
        language="x",
    )


def test_counts(faulty: RankingData) -> None:
    facts = dataset_statistics(faulty)
    train, test = facts.splits["train"], facts.splits["test"]
    assert (train.queries, train.labelled, train.without_relevant) == (2, 2, 0)
    assert train.grades == {0: 1, 1: 1, 2: 1} and train.relevant_per_query == 1.0
    assert train.judged_at_10 == pytest.approx(0.5) and train.relevant_listed == 0.5
    assert (test.labelled, test.without_relevant, test.examples_without_relevant) == (2, 1, ["q5"])
    assert test.judged_at_10 == pytest.approx((0.5 + 1) / 2) and test.candidates_per_query == pytest.approx(5 / 3)
    assert (facts.documents, facts.repeated_documents, facts.unused_queries) == (4, 2, 1)
    assert facts.document_characters.longest == 14 and facts.truncation is None


def test_leaks_go_by_text(faulty: RankingData) -> None:
    (leak,) = dataset_statistics(faulty).leaks
    assert (leak.splits, leak.queries, leak.pairs, leak.examples) == (("train", "test"), 1, 1, ["q2"])


def test_the_warnings_name_every_fault(faulty: RankingData) -> None:
    text = "\n".join(dataset_statistics(faulty).warnings())
    for words in (
        "1 test queries and 1 of its judged pairs are in train too (e.g. q2)",
        "1 of 3 test queries have no relevant document (e.g. q5)",
        "1 relevant documents in train are not among the candidates",
        "2 documents repeat the text of another one",
        "there is no dev split",
    ):
        assert words in text
    assert "train queries repeat" not in text


def test_sound_data_has_no_warnings(word_data: RankingData) -> None:
    assert dataset_statistics(word_data).leaks == []
    assert all("judged" in warning for warning in dataset_statistics(word_data).warnings())


def test_repeated_queries_within_a_split(faulty: RankingData) -> None:
    data = replace(faulty, splits={"test": Split({"q1": {"d1": 1}}, {"q1": ["d1"], "q2": ["d1"]})})
    assert dataset_statistics(data).splits["test"].repeated_queries == 2


def test_truncation_counts_the_pairs_tokens(faulty: RankingData, tokenizer: BertTokenizerFast) -> None:
    found = dataset_statistics(faulty, tokenizer, 8).truncation
    assert found is not None and found.pairs == 9
    # [CLS] query [SEP] document [SEP]; "du" with "ba be bi" has 3 + 1 + 3, "ba" with "da de di do du" 3 + 1 + 5.
    lengths = [
        len(tokenizer(*pair)["input_ids"])
        for split in faulty.splits.values()
        for query, documents in split.candidates.items()
        for pair in faulty.pairs(query, documents)
    ]
    assert found.tokens.longest == max(lengths) and found.share == pytest.approx(np.mean([n > 8 for n in lengths]))
    assert dataset_statistics(faulty, tokenizer).truncation.max_length == 32


def test_the_queries_needed_are_the_inverse_of_the_power_that_is_reported() -> None:
    assert queries_needed(0.01, 0.18) == 2544  # (1.959964 + 0.841621)^2 0.18^2 / 0.01^2 = 2543.06
    count = queries_needed(0.05, 0.2, power=0.7)
    half = count // 2
    values = np.array([1.0] * half + [-1.0] * half)
    values *= 0.2 / values.std(ddof=1)
    teacher = {str(number): 0.5 for number in range(2 * half)}
    student = {str(number): 0.5 + value for number, value in enumerate(values)}
    assert compare(teacher, student, 0.05).power == pytest.approx(0.7, abs=0.01)


def test_more_queries_for_smaller_margins_and_wider_differences() -> None:
    assert queries_needed(0.005, 0.1) > queries_needed(0.01, 0.1) > queries_needed(0.01, 0.05)
