"""Estimate of the peak memory of a training."""

from __future__ import annotations

from hfcompress.models.size import FP32, ModelSize
from hfcompress.recipe import Optimization
from hfcompress.utils.memory import MemoryEstimate

GRADIENT, MOMENTS = 1, 2  # numbers for each trained parameter: its gradient, and two moments of AdamW


def training_memory(
    step: str,
    size: ModelSize,
    settings: Optimization,
    documents: int,
    max_length: int,
    teacher: ModelSize | None = None,
    certain: ModelSize | None = None,
) -> MemoryEstimate:
    """Estimate the memory of a training.

    Weights are 4 bytes a parameter; each trained one has a gradient and the two moments of AdamW (Loshchilov and
    Hutter, "Decoupled Weight Decay Regularization", ICLR 2019), 12 bytes more. All activations of a batch are kept
    until its backward pass (see `ModelSize.activations`); autocast to 16 bits keeps less, which is not counted. At the
    end, the best checkpoint is read beside the weights.

    Args:
        step: The training, as the subject of a sentence.
        size: The model.
        settings: Settings of the training.
        documents: Documents of a list.
        max_length: Longest input in tokens.
        teacher: The teacher, if it runs beside the student.
        certain: The least size that the model can have, if it is to be pruned; by default `size`.
    """
    usual, least = (_states(each, settings.freeze_layers) for each in (size, certain or size))
    beside = teacher.weights if teacher else 0
    pairs = settings.queries_per_batch // settings.accumulation * documents * (2 if settings.r_drop else 1)
    per_batch = size.activations(pairs, max_length, settings.dropout > 0)
    per_batch += teacher.activations(pairs, max_length) // 2 if teacher else 0  # hidden states, or queries and keys
    split = settings.queries_per_batch > settings.accumulation
    return MemoryEstimate(
        step,
        least=least + beside,
        peak=usual + beside + max(per_batch, size.weights),
        counted="weights, gradients and the moments of AdamW",
        remedy=(f"raise optimization.accumulation to {settings.queries_per_batch}, " if split else "")
        + "shorten max_length, "
        + ("freeze the embeddings (optimization.freeze_layers: 0), " if settings.freeze_layers < 0 else "")
        + "or prune the vocabulary",
    )


def _states(size: ModelSize, freeze_layers: int) -> int:
    """Bytes of weights, gradients and moments; frozen weights have neither of the last two."""
    frozen = size.embedding + sum(size.layers[:freeze_layers]) if freeze_layers >= 0 else 0
    return size.weights + FP32 * (GRADIENT + MOMENTS) * (size.parameters - frozen)
