"""Choice of the attention implementation for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from transformers import PreTrainedModel, TrainingArguments


@contextmanager
def training_attention(models: Sequence[PreTrainedModel], arguments: TrainingArguments) -> Iterator[None]:
    """Train with eager attention where the fused kernel is slow, and restore the models' implementation afterwards.

    Slow is the backward pass of PyTorch's fused attention (2.13) in bf16 on the CPU.
    """
    slow = []
    if arguments.bf16 and arguments.device.type == "cpu":
        slow = [model for model in models if model.config._attn_implementation == "sdpa"]
    for model in slow:
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        for model in slow:
            model.set_attn_implementation("sdpa")
