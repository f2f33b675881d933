"""Training arguments whose defaults are those that rankers need."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments

from hfcompress.errors import ModelError
from hfcompress.machine import has_bf16


@dataclass
class RankingTrainingArguments(TrainingArguments):
    """`TrainingArguments` for batches of lists; every value that is given wins.

    What differs from transformers' defaults: the columns of the lists stay (`remove_unused_columns`), an evaluation has
    a loss also where lists have no labels (`label_names`), checkpoints are chosen by `eval_ndcg@10`, which
    `RankingEvalCallback` yields, the CPU is used where there is nothing else, bf16 where the device computes it, and
    buffers, which do not change in encoders, are not sent between processes (`ddp_broadcast_buffers`).

    Attributes:
        use_cpu: Train on the CPU; by default where there is no accelerator.
        bf16: Autocast to bf16; by default where the device computes in bf16, unless fp16 is asked for, here or of
            `accelerate launch`.
        remove_unused_columns: Drop columns that the model does not take.
        label_names: What an evaluation takes for labels: with one of these in a batch there is a loss.
        metric_for_best_model: By what checkpoints are chosen, and training stops early.
        dataloader_pin_memory: Batches in pinned memory.
        ddp_broadcast_buffers: Send buffers to all processes before each pass; the pairs of a batch then pass together,
            padded to the longest.
    """

    use_cpu: bool | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Train on the CPU; by default where there is no accelerator."}
    )
    bf16: bool | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Autocast to bf16; by default where the device computes in bf16."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Drop columns that the model does not take; lists need theirs."}
    )
    label_names: list[str] | None = field(
        default_factory=lambda: ["list_mask"], metadata={"help": "What an evaluation takes for labels."}
    )
    metric_for_best_model: str | None = field(
        default="eval_ndcg@10", metadata={"help": "By what checkpoints are chosen; RankingEvalCallback yields it."}
    )
    dataloader_pin_memory: bool = field(default=False, metadata={"help": "Batches in pinned memory."})
    ddp_broadcast_buffers: bool | None = field(
        default=False, metadata={"help": "Send buffers to all processes before each pass."}
    )

    def __post_init__(self) -> None:
        """Settle what depends on the machine, then check as transformers does."""
        if self.use_cpu is None:
            self.use_cpu = not torch.accelerator.is_available()
        if self.bf16 is None:
            other = self.fp16 or os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no"
            self.bf16 = not other and self._computes_bf16()
        super().__post_init__()

    def _computes_bf16(self) -> bool:
        if self.use_cpu:
            return has_bf16()
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def check_precision(model: Any, arguments: TrainingArguments) -> None:
    """Refuse fp16 for models that overflow in it.

    Raises:
        ModelError: The model is a DeBERTa-v2 or -v3, and is to be trained or evaluated in fp16.
    """
    if model.config.model_type == "deberta-v2" and (arguments.mixed_precision == "fp16" or arguments.fp16_full_eval):
        raise ModelError(
            "DeBERTa-v2 and -v3 are not trained in fp16: their activations exceed its largest number, 65504, and the "
            "loss becomes NaN (https://github.com/microsoft/DeBERTa/issues/77)",
            value="fp16",
            expected="bf16 or fp32",
            remedy="set bf16=True where the device computes it, and leave out fp16 and fp16_full_eval",
        )
