"""Which attention kernel a training uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from transformers import PreTrainedModel, TrainingArguments


@contextmanager
def attention_to_train(models: Sequence[PreTrainedModel], arguments: TrainingArguments) -> Iterator[None]:
    """Train with matrix products and a softmax where the fused kernel is slow, and give models their kernel back.

    In bf16 on the CPU that is PyTorch's fused attention (2.13), for its backward pass.
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
