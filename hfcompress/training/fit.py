"""One training of a run: a trainer with the recipe's settings, dev evaluation, early stopping and resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from hfcompress.architectures import encoder_layers
from hfcompress.data.lists import RankingCollator
from hfcompress.data.ranking import RankingData
from hfcompress.errors import ModelError
from hfcompress.evaluation.metrics import means, per_query, run_from_scores
from hfcompress.machine import has_bf16
from hfcompress.quiet import quiet
from hfcompress.rankers.base import BatchedRanker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import Optimization
from hfcompress.training.trainer import RankingTrainer


def fit(
    trainer_class: type[RankingTrainer],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    lists: Dataset,
    data: RankingData,
    settings: Optimization,
    folder: Path,
    seed: int,
    progress: bool = True,
    **trainer_options: Any,
) -> dict[str, float]:
    """Train a model in place, and leave it with the weights that were best on dev by nDCG@10.

    Args:
        trainer_class: `RankingTrainer` or a subclass.
        model: The model.
        tokenizer: Its tokenizer, with `model_max_length` set.
        lists: What `training_lists` returned.
        data: Data with a dev split; without one, the last weights are kept.
        settings: Settings of the training.
        folder: Where checkpoints go; a checkpoint found there is resumed from.
        seed: Seed of shuffling and dropout.
        progress: Show a progress bar.
        **trainer_options: Further arguments of the trainer.

    Returns:
        `best_dev_ndcg@10` (absent without a dev split), and `steps`.
    """
    set_dropout(model, settings.dropout)
    freeze(model, settings.freeze_layers)
    steps = settings.epochs * math.ceil(len(lists) / settings.queries_per_batch)
    has_dev = bool(data.splits.get("dev"))
    every = max(1, steps // (settings.epochs * settings.evaluations))
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.queries_per_batch // settings.accumulation,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        use_cpu=not torch.accelerator.is_available(),  # without it, bf16 is refused on a machine that has no GPU
        bf16=settings.precision == "bf16" or (settings.precision == "auto" and has_bf16()),
        eval_strategy="steps" if has_dev else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=1,
        load_best_model_at_end=has_dev,
        metric_for_best_model="eval_ndcg@10" if has_dev else None,
        logging_steps=max(1, every // 4),
        remove_unused_columns=False,
        report_to=[],
        seed=seed,
        disable_tqdm=not progress,
        dataloader_pin_memory=False,
    )
    trainer = trainer_class(
        model=model,
        args=arguments,
        train_dataset=lists,
        eval_dataset=lists.select(range(0)) if has_dev else None,
        data_collator=RankingCollator(tokenizer, tokenizer.model_max_length),
        callbacks=[EarlyStoppingCallback(settings.patience)] if has_dev else None,
        r_drop=settings.r_drop,
        adversarial=settings.adversarial,
        ranking_metrics=(lambda trained: dev_metrics(trained, tokenizer, data)) if has_dev else None,
        **trainer_options,
    )
    checkpoint = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    with quiet():
        trainer.train(resume_from_checkpoint=checkpoint)
    model.requires_grad_(True)
    figures = {"steps": float(trainer.state.global_step)}
    if trainer.state.best_metric is not None:
        figures["best_dev_ndcg@10"] = trainer.state.best_metric
    return figures


def dev_metrics(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, data: RankingData) -> dict[str, float]:
    """Mean quality on the dev split of a model as it is now."""
    return split_quality(TorchRanker(model, tokenizer, lambda logits: logits), data, "dev")


def split_quality(ranker: BatchedRanker, data: RankingData, split: str) -> dict[str, float]:
    """Mean of every metric over the queries of a split."""
    chosen = data.splits[split]
    pairs = [pair for query, documents in chosen.candidates.items() for pair in data.pairs(query, documents)]
    flat = iter(ranker.score(pairs).tolist())
    scores = {query: [next(flat) for _ in documents] for query, documents in chosen.candidates.items()}
    run = run_from_scores(chosen.candidates, scores)
    return means(per_query(chosen.qrels, run, data.relevant_from))


def set_dropout(model: nn.Module, probability: float) -> None:
    """Set every dropout of a model; its config stays as it is."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability


def check_frozen(frozen: int, layers: int) -> None:
    """Check that a layer is left to train.

    Raises:
        ModelError: As many layers are frozen as there are.
    """
    if frozen >= layers:
        raise ModelError(
            "freeze_layers leaves no layer to train",
            value=frozen,
            expected=f"less than the model's {layers} layers",
            remedy="lower freeze_layers",
        )


def freeze(model: PreTrainedModel, layers: int) -> None:
    """Freeze the embeddings and the lowest `layers` encoder layers; -1 freezes nothing.

    Raises:
        ModelError: The model has fewer layers.
    """
    if layers < 0:
        return
    encoder = encoder_layers(model)
    check_frozen(layers, len(encoder))
    model.base_model.embeddings.requires_grad_(False)
    for layer in encoder[:layers]:
        layer.requires_grad_(False)
