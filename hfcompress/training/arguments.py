"""Training arguments with defaults for rankers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from transformers import TrainingArguments

from hfcompress.errors import ModelError
from hfcompress.utils.device import CHOSEN_VARIABLE, half_precision, process_state, torch_device

OVERFLOWS_FP16 = ("deberta-v2",)  # families whose activations exceed 65504


@dataclass
class RankingTrainingArguments(TrainingArguments):
    """`TrainingArguments` for batches of lists. Explicit values override these defaults.

    The defaults of these attributes differ from those of transformers.

    Attributes:
        use_cpu: Train on the CPU; by default if there is no accelerator.
        single_device: Train in this process on this device alone, e.g. `cuda:1`; by default on the first accelerator,
            and on all of them by data parallelism. A process of `accelerate launch` has a device of its own instead.
        bf16: Autocast to bf16; by default where that is faster, unless fp16 is set, here or by `accelerate launch`.
        remove_unused_columns: Drop columns that the model does not take; False, since lists need all of theirs.
        label_names: Columns that count as labels in an evaluation; with one of them in a batch there is a loss. By
            default `list_mask`, so that lists without labels have one too.
        metric_for_best_model: Metric for the choice of checkpoints and for early stopping; by default `eval_ndcg@10`,
            which `RankingEvalCallback` computes.
        dataloader_pin_memory: Pin batches in memory.
        ddp_broadcast_buffers: Broadcast buffers to all processes before each forward pass; False, since buffers of
            encoders do not change. If set, a batch is not split into length groups.
    """

    use_cpu: bool | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Train on the CPU; by default if there is no accelerator."}
    )
    single_device: str | None = field(
        default=None, metadata={"help": "Train in this process on this device alone, e.g. cuda:1."}
    )
    bf16: bool | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Autocast to bf16; by default where that is faster."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Drop columns that the model does not take; lists need all of theirs."}
    )
    label_names: list[str] | None = field(
        default_factory=lambda: ["list_mask"], metadata={"help": "Columns that count as labels in an evaluation."}
    )
    metric_for_best_model: str | None = field(
        default="eval_ndcg@10", metadata={"help": "Metric for the choice of checkpoints, from RankingEvalCallback."}
    )
    dataloader_pin_memory: bool = field(default=False, metadata={"help": "Pin batches in memory."})
    ddp_broadcast_buffers: bool | None = field(
        default=False, metadata={"help": "Broadcast buffers to all processes before each forward pass."}
    )

    def __post_init__(self) -> None:
        """Set the defaults that depend on the machine, then run transformers' checks."""
        if self.use_cpu is None:
            self.use_cpu = not torch.accelerator.is_available()
        if self.bf16 is None:
            other = self.fp16 or os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no"
            self.bf16 = not other and self._computes_bf16()
        super().__post_init__()

    @cached_property
    def _setup_devices(self) -> torch.device:
        """Accelerate's device; transformers would take all accelerators of an order of its own."""
        if self.single_device is None:
            return super()._setup_devices
        before = os.environ.get(CHOSEN_VARIABLE)
        launched = process_state().num_processes > 1
        if not launched:
            os.environ[CHOSEN_VARIABLE] = self.single_device
        try:
            device = super()._setup_devices
        finally:
            os.environ.pop(CHOSEN_VARIABLE, None)
            os.environ.update({CHOSEN_VARIABLE: before} if before is not None else {})
        if launched:
            return device
        self._n_gpu = min(self._n_gpu, 1)
        return torch.device(self.single_device)

    def _computes_bf16(self) -> bool:
        device = torch_device("cpu" if self.use_cpu else "auto")
        return bool(self.use_cpu) == (device.type == "cpu") and half_precision(device) == torch.bfloat16


def check_precision(model: Any, arguments: TrainingArguments) -> None:
    """Check that a model does not overflow in the precision of the training.

    Raises:
        ModelError: A DeBERTa-v2 or -v3 would be trained or evaluated in fp16.
    """
    if model.config.model_type in OVERFLOWS_FP16 and (arguments.mixed_precision == "fp16" or arguments.fp16_full_eval):
        raise ModelError(
            "DeBERTa-v2 and -v3 cannot be trained in fp16: their activations exceed its maximum, 65504, and the "
            "loss becomes NaN (https://github.com/microsoft/DeBERTa/issues/77)",
            value="fp16",
            expected="bf16 or fp32",
            remedy="set bf16=True if the device supports it, and leave out fp16 and fp16_full_eval",
        )
