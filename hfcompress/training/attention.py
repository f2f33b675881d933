"""Which attention kernel a training uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel, TrainingArguments


@contextmanager
def attention_to_train(model: PreTrainedModel, arguments: TrainingArguments) -> Iterator[None]:
    """Train with matrix products and a softmax where the fused kernel is slow, and give the model its kernel back.

    In bf16 on the CPU the backward pass of PyTorch's fused attention (2.13) takes longer than all the rest of a step.
    """
    before: str = getattr(model.config, "_attn_implementation", "")
    slow = before == "sdpa" and bool(arguments.bf16) and arguments.device.type == "cpu"
    if slow:
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        if slow:
            model.set_attn_implementation(before)
