"""`RankingMetric`: the values of `per_query` through evaluate's own interface, and in a `Trainer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
import torch
from conftest import make_pico
from transformers import BertTokenizerFast, Trainer, TrainingArguments

from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError
from hfcompress.evaluation import RankingMetric
from hfcompress.evaluation.metrics import METRICS, split_quality
from hfcompress.rankers.pytorch import TorchRanker

SCORES = [[3.0, 2.0, 1.0], [0.5, 0.7]]
GRADES = [[0, 2, 1], [0, 1]]


def flat(lists: list[list[Any]]) -> list[Any]:
    return [value for row in lists for value in row]


def test_pairs_lists_and_padded_lists_give_the_same() -> None:
    metric = RankingMetric(["ndcg@10", "mrr@10", "hit@1", "auc"])
    assert isinstance(metric, evaluate.Metric)
    expected = metric.compute(predictions=SCORES, references=GRADES)
    assert expected["mrr@10"] == 0.75 and expected["hit@1"] == 0.5 and expected["queries"] == 2
    padded = np.array([SCORES[0], [*SCORES[1], 9.0]]), np.array([GRADES[0], [*GRADES[1], -100]])
    assert metric.compute(predictions=padded[0], references=padded[1]) == expected
    ids = ["a", "a", "a", "b", "b"]
    assert metric.compute(predictions=flat(SCORES), references=flat(GRADES), query_ids=ids) == expected
    turned = metric.compute(predictions=flat(SCORES)[::-1], references=flat(GRADES)[::-1], query_ids=ids[::-1])
    assert turned == pytest.approx(expected)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint8, np.float32, torch.int32, torch.float16])
def test_scores_and_grades_of_any_type(kind: Any) -> None:
    expected = RankingMetric().compute(predictions=[3.0, 2.0, 1.0], references=[0, 2, 1], query_ids=[7, 7, 7])
    make = torch.tensor if isinstance(kind, torch.dtype) else np.array
    scores, grades = make([3, 2, 1], dtype=kind), make([0, 2, 1], dtype=kind)
    assert RankingMetric().compute(predictions=scores, references=grades, query_ids=np.array([7] * 3)) == expected


def test_batches_may_be_added_one_by_one() -> None:
    metric = RankingMetric()
    for scores, grades in zip(SCORES, GRADES, strict=True):
        metric.add_batch(predictions=[scores], references=[grades])
    assert metric.compute() == RankingMetric().compute(predictions=SCORES, references=GRADES)


def test_ties_and_queries_without_a_relevant_document_are_counted() -> None:
    found = RankingMetric(["mrr@10"]).compute(predictions=[[1.0, 1.0, 0.0], [1.0, 0.0]], references=[[1, 0, 0], [0, 0]])
    # Of equal scores the document given later comes first; that of the second query counts nowhere.
    assert found == {"mrr@10": 0.5, "queries": 1, "queries_without_relevant": 1, "tied_share": pytest.approx(1 / 3)}
    ids = [["b", "a", "c"], ["a", "b"]]
    again = RankingMetric(["mrr@10"]).compute(
        predictions=[[1.0, 1.0, 0.0], [1.0, 0.0]], references=[[1, 0, 0], [0, 0]], document_ids=ids
    )
    assert again["mrr@10"] == 1  # b before a


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"predictions": [1.0, 2.0], "references": [1, 0]}, "need query_ids"),
        ({"predictions": SCORES, "references": GRADES, "query_ids": ["a", "b"]}, "must have none"),
        ({"predictions": [1.0, 2.0], "references": [1, 0], "query_ids": ["a"]}, "same shape"),
        ({"predictions": SCORES, "references": [[0, 1], [0, 1]]}, "same shape"),
        ({"predictions": [1.0, 2.0], "references": [1, 0.5], "query_ids": ["a", "a"]}, "whole number"),
        ({"predictions": [1.0, 2.0], "references": [1, -1], "query_ids": ["a", "a"]}, "whole number"),
        ({"predictions": [1.0, float("nan")], "references": [1, 0], "query_ids": ["a", "a"]}, "not finite"),
        ({"predictions": [1.0, float("inf")], "references": [1, 0], "query_ids": ["a", "a"]}, "not finite"),
        ({"predictions": [1.0, 2.0], "references": [0, 0], "query_ids": ["a", "a"]}, "No query has a relevant"),
        (
            {"predictions": [1.0, 2.0], "references": [1, 0], "query_ids": ["a", "a"], "document_ids": ["x", "x"]},
            "document twice",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        RankingMetric().compute(**inputs)


def test_a_name_that_is_no_metric_is_refused_at_once() -> None:
    with pytest.raises(DataError, match="no such metric"):
        RankingMetric(["ndcg@10", "accuracy"])


def test_compute_metrics_of_a_trainer(tmp_path: Path, word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    split, model = word_data.splits["dev"], make_pico()
    rows, query_ids, document_ids = [], [], []
    for query, documents in split.candidates.items():
        for document, pair in zip(documents, word_data.pairs(query, documents), strict=True):
            label = float(split.qrels[query].get(document, 0))
            rows.append({**tokenizer(*pair, truncation=True), "label": label})
            query_ids.append(query)
            document_ids.append(document)
    metric = RankingMetric()

    def compute_metrics(output: Any) -> dict[str, float]:
        return metric.compute(
            predictions=output.predictions.ravel(),
            references=output.label_ids.ravel(),
            query_ids=query_ids,
            document_ids=document_ids,
        )

    settings = TrainingArguments(str(tmp_path), report_to=[], disable_tqdm=True, dataloader_pin_memory=False)
    trainer = Trainer(model, settings, eval_dataset=rows, processing_class=tokenizer, compute_metrics=compute_metrics)
    found = trainer.evaluate()
    expected = split_quality(TorchRanker(model, tokenizer), word_data, "dev")
    assert {name: found[f"eval_{name}"] for name in METRICS} == pytest.approx(expected, abs=1e-6)
    assert found["eval_queries"] == len(split)
