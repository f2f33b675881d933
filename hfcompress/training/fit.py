"""A training of a run: a trainer with the recipe's settings, dev evaluation, early stopping and resume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
)
from transformers.trainer_utils import get_last_checkpoint

from hfcompress.data.lists import RankingCollator
from hfcompress.data.ranking import RankingData
from hfcompress.errors import ModelError
from hfcompress.models.architectures import encoder_layers
from hfcompress.recipe import Optimization
from hfcompress.training.arguments import OVERFLOWS_FP16, RankingTrainingArguments
from hfcompress.training.callbacks import RankingEvalCallback
from hfcompress.training.progress import TrainingBarCallback
from hfcompress.training.ready import ready_to_train
from hfcompress.training.stateful import EarlyStopping
from hfcompress.training.trainer import RankingTrainer
from hfcompress.utils.device import half_precision
from hfcompress.utils.quiet import quiet


def fit(
    trainer_class: type[RankingTrainer],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    lists: Dataset,
    data: RankingData,
    settings: Optimization,
    folder: Path,
    seed: int,
    progress: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
    **trainer_options: Any,
) -> dict[str, float]:
    """Train a model in place; it ends with the weights that had the best nDCG@10 on dev.

    Args:
        trainer_class: `RankingTrainer` or a subclass.
        model: The model; it is trained on its device.
        tokenizer: Its tokenizer, with `model_max_length` set.
        lists: Training lists, from `training_lists`.
        data: Data with a dev split; without one, the model ends with the last weights.
        settings: Settings of the training.
        folder: Folder for checkpoints; training resumes from the last one in it.
        seed: Seed of shuffling and dropout.
        progress: Show a progress bar.
        callbacks: Additional callbacks of the trainer.
        **trainer_options: Additional arguments of the trainer.

    Returns:
        `steps`, and `best_dev_ndcg@10` if there is a dev split.
    """
    model = ready_to_train(model)
    set_dropout(model, settings.dropout)
    freeze(model, settings.freeze_layers)
    steps = settings.epochs * math.ceil(len(lists) / settings.queries_per_batch)
    has_dev = bool(data.splits.get("dev"))
    every = max(1, steps // (settings.epochs * settings.evaluations))
    half = autocast_of(model, settings.precision)
    arguments = RankingTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.queries_per_batch // settings.accumulation,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=half == torch.bfloat16,
        fp16=half == torch.float16,
        use_cpu=model.device.type == "cpu",
        single_device=str(model.device),
        eval_strategy="steps" if has_dev else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=1,
        load_best_model_at_end=has_dev,
        logging_steps=max(1, every // 4),
        seed=seed,
        disable_tqdm=True,  # transformers' own bar; see TrainingBarCallback
    )
    evaluation = [RankingEvalCallback(data, tokenizer), EarlyStopping(settings.patience)] if has_dev else []
    trainer = trainer_class(
        model=model,
        args=arguments,
        train_dataset=lists,
        eval_dataset=lists.select(range(0)) if has_dev else None,  # empty: the callback evaluates, a loss is not needed
        data_collator=RankingCollator(tokenizer, tokenizer.model_max_length),
        callbacks=[*callbacks, *evaluation],
        r_drop=settings.r_drop,
        adversarial=settings.adversarial,
        **trainer_options,
    )
    trainer.remove_callback(PrinterCallback)
    if progress:
        trainer.add_callback(TrainingBarCallback())
    checkpoint = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    with quiet():
        trainer.train(resume_from_checkpoint=checkpoint)
    model.requires_grad_(True)
    figures = {"steps": float(trainer.state.global_step)}
    if trainer.state.best_metric is not None:
        figures["best_dev_ndcg@10"] = trainer.state.best_metric
    return figures


def autocast_of(model: PreTrainedModel, precision: str) -> torch.dtype | None:
    """The type of autocast for a precision of `Optimization`, on the device of the model; None for fp32."""
    if precision != "auto":
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    half = half_precision(model.device)
    return None if half == torch.float16 and model.config.model_type in OVERFLOWS_FP16 else half


def set_dropout(model: nn.Module, probability: float) -> None:
    """Set the probability of every dropout of a model; its config is unchanged."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability


def check_frozen(frozen: int, layers: int) -> None:
    """Check that at least one layer is trained.

    Raises:
        ModelError: All layers are frozen.
    """
    if frozen >= layers:
        raise ModelError(
            "freeze_layers freezes every layer",
            value=frozen,
            expected=f"less than the model's {layers} layers",
            remedy="lower freeze_layers",
        )


def freeze(model: PreTrainedModel, layers: int) -> None:
    """Freeze the embeddings and the lowest `layers` encoder layers; -1 freezes nothing.

    Raises:
        ModelError: The model has no more layers than that.
    """
    if layers < 0:
        return
    encoder = encoder_layers(model)
    check_frozen(layers, len(encoder))
    model.base_model.embeddings.requires_grad_(False)
    for layer in encoder[:layers]:
        layer.requires_grad_(False)
