"""Callbacks in a plain `Trainer`, in ours, and in that of sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import make_pico
from datasets import Dataset
from script_inputs import dev_quality, labelled_pairs, pico_cross_encoder
from sentence_transformers import cross_encoder
from transformers import BertTokenizerFast, EarlyStoppingCallback, Trainer, TrainingArguments

from hfcompress import RankingEvalCallback
from hfcompress.data.lists import RankingCollator, training_lists
from hfcompress.data.ranking import RankingData, Split
from hfcompress.errors import DataError, ModelError, RecipeError
from hfcompress.evaluation.metrics import METRICS
from hfcompress.training.callbacks import transformer_of
from hfcompress.training.trainer import RankingTrainer

SETTINGS: dict[str, Any] = {
    "num_train_epochs": 3, "learning_rate": 2e-3, "per_device_train_batch_size": 8, "eval_strategy": "epoch",
    "save_strategy": "epoch", "load_best_model_at_end": True, "metric_for_best_model": "eval_ndcg@10", "report_to": [],
    "use_cpu": True, "disable_tqdm": True,
}  # fmt: skip


def check(trained: Any, model: Any, tokenizer: BertTokenizerFast, data: RankingData) -> None:
    """The model is left with the checkpoint that ranked best, and the log has the quality of each."""
    seen = [entry["eval_ndcg@10"] for entry in trained.state.log_history if "eval_ndcg@10" in entry]
    assert len(seen) == 3 and len(set(seen)) > 1
    assert trained.state.best_metric == max(seen)
    assert dev_quality(model, tokenizer, data)["ndcg@10"] == pytest.approx(max(seen))


def test_in_a_plain_trainer(
    pairs: Dataset, word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    model = make_pico(problem_type="regression")
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(tmp_path), **SETTINGS),
        train_dataset=pairs,
        eval_dataset=pairs.select(range(8)),
        callbacks=[RankingEvalCallback(word_data, tokenizer), EarlyStoppingCallback(5)],
    )
    trainer.train()
    check(trainer, model, tokenizer, word_data)
    assert {f"eval_{name}" for name in METRICS} <= trainer.evaluate().keys()
    assert model.training is False


def test_in_our_trainer(word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    model = make_pico()
    lists = training_lists(word_data, 4, 1, seed=0)
    trainer = RankingTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(tmp_path), remove_unused_columns=False, **SETTINGS),
        train_dataset=lists,
        eval_dataset=lists.select(range(8)),
        data_collator=RankingCollator(tokenizer, 32),
        callbacks=[RankingEvalCallback(word_data, tokenizer)],
    )
    trainer.train()
    check(trainer, model, tokenizer, word_data)


def test_in_the_trainer_of_sentence_transformers(
    word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    model = pico_cross_encoder(tmp_path / "model", tokenizer)
    pairs = labelled_pairs(word_data)
    trainer = cross_encoder.CrossEncoderTrainer(
        model=model,
        args=cross_encoder.CrossEncoderTrainingArguments(output_dir=str(tmp_path / "out"), **SETTINGS),
        train_dataset=pairs,
        eval_dataset=pairs.select(range(8)),
        loss=cross_encoder.losses.BinaryCrossEntropyLoss(model),
        callbacks=[RankingEvalCallback(word_data, tokenizer)],
    )
    trainer.train()
    check(trainer, transformer_of(model), tokenizer, word_data)


@pytest.mark.parametrize(
    ("metric", "greater"), [("eval_ndcg@5", None), ("ndcg@100", True), ("eval_ndcg@10", False), ("map", False)]
)
def test_a_metric_that_no_evaluation_yields_is_found_before_the_first_step(
    pairs: Dataset,
    word_data: RankingData,
    tokenizer: BertTokenizerFast,
    tmp_path: Path,
    metric: str,
    greater: bool | None,
) -> None:
    settings = {**SETTINGS, "metric_for_best_model": metric, "greater_is_better": greater}
    trainer = Trainer(
        model=make_pico(problem_type="regression"),
        args=TrainingArguments(output_dir=str(tmp_path), **settings),
        train_dataset=pairs,
        eval_dataset=pairs,
        callbacks=[RankingEvalCallback(word_data, tokenizer)],
    )
    with pytest.raises(RecipeError, match=r"metric_for_best_model.*eval_ndcg@10, eval_mrr@10"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_splits_that_do_not_fit(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    with pytest.raises(DataError, match="test split"):
        RankingEvalCallback(word_data, tokenizer, "test")
    with pytest.raises(DataError, match="no 'validation' split"):
        RankingEvalCallback(word_data, tokenizer, "validation")
    unjudged = Split({}, word_data.splits["dev"].candidates)
    data = RankingData("words", word_data.queries, word_data.corpus, {"dev": unjudged})
    with pytest.raises(DataError, match="no query with a relevant document"):
        RankingEvalCallback(data, tokenizer)


def test_a_model_that_holds_no_transformer() -> None:
    model = make_pico()
    assert transformer_of(model) is model
    with pytest.raises(ModelError, match="Linear"):
        transformer_of(model.classifier)
