"""Training runs on the device of the model, with losses, regularization, callbacks and the teacher of features."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from conftest import EVERY_FAMILY, make_pico, uneven_plan
from pretend_device import NAME, pretend_device
from transformers import BertTokenizerFast

from hfcompress.data.lists import RankingCollator, training_lists, with_scores
from hfcompress.data.ranking import RankingData
from hfcompress.models.surgery import apply_plan
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import DistillationLoss, FeatureLoss
from hfcompress.training import arguments as training_arguments
from hfcompress.training.arguments import RankingTrainingArguments
from hfcompress.training.callbacks import RankingEvalCallback
from hfcompress.training.fit import autocast_of
from hfcompress.training.quantization_aware import QuantizationAwareCallback
from hfcompress.training.trainer import RankingDistillationTrainer
from hfcompress.training.weight_pruning import WeightPruningCallback


def test_distillation_on_a_device(word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    lists = training_lists(word_data, documents=4, random_negatives=1, seed=0, queries=8)
    lists = with_scores(lists, TorchRanker(make_pico(seed=3), tokenizer), progress=False)
    every_term = DistillationLoss(
        margin_mse=1, ranknet=1, adr_mse=1, listmle=1, mse=1, hard=1, lambda_ndcg=1, infonce=1, listwise_kl=1
    )
    with pretend_device() as device:
        model = apply_plan(make_pico(hidden_dropout_prob=0.1), uneven_plan()).to(device)
        before = model.classifier.weight.detach().cpu().clone()
        arguments = RankingTrainingArguments(
            output_dir=str(tmp_path), max_steps=4, per_device_train_batch_size=2, learning_rate=1e-3, bf16=False,
            use_cpu=False, single_device=str(device), save_strategy="no", eval_strategy="steps", eval_steps=2,
            logging_steps=1, report_to=[], disable_tqdm=True, max_grad_norm=1.0,
        )  # fmt: skip
        assert arguments.device == device and arguments.n_gpu <= 1
        trainer = RankingDistillationTrainer(
            model=model,
            args=arguments,
            train_dataset=lists,
            eval_dataset=lists.select(range(0)),
            data_collator=RankingCollator(tokenizer, 32),
            callbacks=[
                RankingEvalCallback(word_data, tokenizer),
                QuantizationAwareCallback(0.5, True),
                WeightPruningCallback(0.5, "unstructured", end=0.5),
            ],
            distillation_loss=every_term,
            feature_loss=FeatureLoss(hidden=1, relation=1),
            teacher=make_pico(seed=3),
            r_drop=0.1,
            adversarial=0.1,
        )
        trainer.train()
        assert model.device == device and trainer.features is not None
        assert trainer.features.teacher.device == device
        after = model.classifier.weight.detach().cpu()
    assert not torch.equal(before, after) and torch.isfinite(after).all()
    assert any("eval_ndcg@10" in entry for entry in trainer.state.log_history)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_step_of_every_family_on_a_device(
    family: str, word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    lists = training_lists(word_data, documents=4, random_negatives=1, seed=0, queries=2)
    lists = with_scores(lists, TorchRanker(make_pico(family, seed=3), tokenizer), progress=False)
    with pretend_device() as device:
        model = apply_plan(make_pico(family), uneven_plan()).to(device)
        before = [parameter.detach().cpu().clone() for parameter in model.parameters()]
        arguments = RankingTrainingArguments(
            output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, learning_rate=1e-2, bf16=False,
            use_cpu=False, single_device=str(device), save_strategy="no", report_to=[], disable_tqdm=True,
        )  # fmt: skip
        RankingDistillationTrainer(
            model=model,
            args=arguments,
            train_dataset=lists,
            data_collator=RankingCollator(tokenizer, 32),
            feature_loss=FeatureLoss(hidden=1, relation=1),
            teacher=make_pico(family, seed=3),
        ).train()
        after = [parameter.detach().cpu() for parameter in model.parameters()]
    changed = [not torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert sum(changed) > len(changed) / 2 and all(torch.isfinite(each).all() for each in after)


def test_a_single_device_is_accelerates_choice_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_TORCH_DEVICE", raising=False)
    arguments = RankingTrainingArguments(output_dir=str(tmp_path), use_cpu=False, bf16=False, single_device="meta")
    assert str(arguments.device) == "meta" and str(arguments.distributed_state.device) == "meta"
    assert "ACCELERATE_TORCH_DEVICE" not in os.environ
    on_cpu = RankingTrainingArguments(output_dir=str(tmp_path), use_cpu=True, bf16=False, single_device="cpu")
    assert str(on_cpu.device) == "cpu" and on_cpu.n_gpu == 0


@pytest.mark.parametrize(
    ("half", "family", "wanted"),
    [
        (torch.bfloat16, "bert", torch.bfloat16),
        (torch.bfloat16, "deberta-v2", torch.bfloat16),
        (torch.float16, "bert", torch.float16),
        (torch.float16, "deberta-v2", None),
        (None, "bert", None),
    ],
)
def test_autocast_is_what_the_device_computes(
    half: torch.dtype | None, family: str, wanted: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfcompress.training.fit.half_precision", lambda device: half)
    assert autocast_of(make_pico(family), "auto") == wanted
    assert autocast_of(make_pico(family), "fp32") is None
    assert autocast_of(make_pico(family), "fp16") == torch.float16


def test_arguments_know_what_an_accelerator_computes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        training_arguments, "torch_device", lambda name: torch.device("cuda" if name == "auto" else name)
    )
    monkeypatch.setattr(training_arguments, "half_precision", lambda device: asked.append(str(device)))
    assert not RankingTrainingArguments(output_dir=str(tmp_path), use_cpu=True).bf16
    assert not RankingTrainingArguments(output_dir=str(tmp_path), use_cpu=False).bf16
    assert asked == ["cpu", "cuda"] and NAME not in asked
