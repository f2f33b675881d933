"""Training arguments for rankers: defaults, values that win, round trips; what our trainer checks and leaves alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_pico
from datasets import Dataset
from transformers import BertTokenizerFast, HfArgumentParser, TrainerCallback, TrainingArguments

from hfcompress import RankingEvalCallback, RankingTrainer, RankingTrainingArguments
from hfcompress.data.lists import RankingCollator, training_lists
from hfcompress.data.ranking import RankingData
from hfcompress.errors import ModelError, RecipeError
from hfcompress.utils.machine import trains_in_bf16

CPU = not torch.accelerator.is_available()
EVERY_STEP: dict[str, Any] = {"max_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "no"}


@pytest.fixture
def lists(word_data: RankingData) -> Dataset:
    return training_lists(word_data, 4, 1, seed=0).select(range(8))


def made(
    lists: Dataset,
    tokenizer: BertTokenizerFast,
    folder: Path,
    model: Any = None,
    callbacks: Any = None,
    **settings: Any,
) -> RankingTrainer:
    return RankingTrainer(
        model=model or make_pico(),
        args=RankingTrainingArguments(output_dir=str(folder), disable_tqdm=True, **settings),
        train_dataset=lists,
        eval_dataset=lists,
        data_collator=RankingCollator(tokenizer, 32),
        callbacks=callbacks,
    )


def test_defaults(tmp_path: Path) -> None:
    arguments = RankingTrainingArguments(output_dir=str(tmp_path))
    assert arguments.use_cpu is CPU
    assert arguments.bf16 is (trains_in_bf16() if CPU else torch.cuda.is_bf16_supported(including_emulation=False))
    assert (arguments.remove_unused_columns, arguments.dataloader_pin_memory, arguments.report_to) == (False, False, [])
    assert (arguments.metric_for_best_model, arguments.greater_is_better) == ("eval_ndcg@10", True)


@pytest.mark.parametrize("computes", [True, False])
def test_bf16_where_the_cpu_computes_it(computes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfcompress.utils.device.trains_in_bf16", lambda: computes)
    assert RankingTrainingArguments(str(tmp_path), use_cpu=True).bf16 is computes
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")  # accelerate launch --mixed_precision fp16
    assert RankingTrainingArguments(str(tmp_path), use_cpu=True).bf16 is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bf16", False),
        ("bf16", True),
        ("use_cpu", True),
        ("remove_unused_columns", True),
        ("label_names", ["labels"]),
        ("metric_for_best_model", "loss"),
        ("metric_for_best_model", None),
        ("dataloader_drop_last", True),
    ],
)
def test_what_is_given_wins_and_comes_back(name: str, value: Any, tmp_path: Path) -> None:
    arguments = RankingTrainingArguments(output_dir=str(tmp_path), **{"use_cpu": CPU, name: value})
    assert getattr(arguments, name) == value
    plain = arguments.to_dict()
    assert RankingTrainingArguments(**plain).to_dict() == plain
    assert RankingTrainingArguments(**json.loads(arguments.to_json_string())).to_dict() == plain
    (parsed,) = HfArgumentParser(RankingTrainingArguments).parse_dict(plain)
    assert parsed.to_dict() == plain


def test_from_the_command_line(tmp_path: Path) -> None:
    parser = HfArgumentParser(RankingTrainingArguments)
    (defaults,) = parser.parse_args_into_dataclasses(["--output_dir", str(tmp_path)])
    assert defaults.to_dict() == RankingTrainingArguments(output_dir=str(tmp_path)).to_dict()
    options = ["--bf16", "false", "--metric_for_best_model", "loss", "--report_to", "tensorboard", "--use_cpu", "true"]
    (given,) = parser.parse_args_into_dataclasses(["--output_dir", str(tmp_path), *options])
    assert (given.bf16, given.metric_for_best_model, given.greater_is_better) == (False, "loss", False)
    assert given.report_to == ["tensorboard"] and given.use_cpu
    assert "--bf16" in parser.format_help()


def test_lists_without_labels_have_a_loss_at_evaluations(
    lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    class Unlabelled(RankingTrainer):
        def list_losses(self, scores: torch.Tensor, targets: dict[str, torch.Tensor]) -> torch.Tensor:
            assert "labels" not in targets
            return scores.square().sum(1)

    arguments = RankingTrainingArguments(output_dir=str(tmp_path))
    collate = RankingCollator(tokenizer, 32)
    trainer = Unlabelled(make_pico(), arguments, eval_dataset=lists.remove_columns("labels"), data_collator=collate)
    assert trainer.evaluate()["eval_loss"] > 0


def test_a_metric_that_nothing_yields(lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    trainer = made(lists, tokenizer, tmp_path, **EVERY_STEP)
    with pytest.raises(RecipeError, match=r"eval_ndcg@10.*eval_loss.*add RankingEvalCallback"):
        trainer.train()
    assert trainer.state.global_step == 0
    with pytest.raises(RecipeError, match="eval_accuracy"):
        made(lists, tokenizer, tmp_path, metric_for_best_model="eval_accuracy", **EVERY_STEP).train()


def test_metrics_that_something_yields(
    lists: Dataset, word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    class Own(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
            metrics["eval_own"] = 1.0

    measured = RankingEvalCallback(word_data, tokenizer)
    made(lists, tokenizer, tmp_path, metric_for_best_model="loss", **EVERY_STEP).train()
    made(lists, tokenizer, tmp_path, callbacks=[measured], **EVERY_STEP).train()
    made(lists, tokenizer, tmp_path, callbacks=[Own()], metric_for_best_model="own", **EVERY_STEP).train()
    made(lists, tokenizer, tmp_path, max_steps=1, save_strategy="no").train()  # no evaluation, no metric
    several = made(lists, tokenizer, tmp_path, metric_for_best_model="eval_a_loss", **EVERY_STEP)
    several.eval_dataset = {"a": lists, "b": lists}
    several.train()


@pytest.mark.parametrize("settings", [{"fp16": True}, {"fp16_full_eval": True}])
def test_deberta_is_not_trained_in_fp16(
    settings: dict[str, bool], lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"DeBERTa-v2.*65504.*NaN.*bf16"):
        made(lists, tokenizer, tmp_path, make_pico("deberta-v2"), bf16=False, **settings)
    made(lists, tokenizer, tmp_path, make_pico("deberta-v2"))


def test_a_checkpoint_has_no_problem_type(lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    trainer = made(lists, tokenizer, tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    trainer.evaluate()
    trainer.save_model(str(tmp_path / "saved"))
    for folder in ("checkpoint-1", "saved"):
        assert json.loads((tmp_path / folder / "config.json").read_text()).get("problem_type") is None


def test_a_card_of_hfcompress_is_left_alone(lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    ours = (Path(__file__).parents[2] / "model_cards" / "quickstart" / "README.md").read_text(encoding="utf-8")
    card.write_text(ours)
    trainer = made(lists, tokenizer, tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    trainer.save_model()
    trainer.create_model_card(model_name="draft")
    assert card.read_text() == ours
    card.unlink()
    trainer.create_model_card(model_name="draft")
    assert "draft" in card.read_text()
    trainer.create_model_card(model_name="another draft")
    assert "another draft" in card.read_text()


def test_stock_arguments_still_do(lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    arguments = TrainingArguments(str(tmp_path), remove_unused_columns=False, use_cpu=True, **EVERY_STEP)
    collate = RankingCollator(tokenizer, 32)
    RankingTrainer(make_pico(), arguments, train_dataset=lists, eval_dataset=lists, data_collator=collate).train()
