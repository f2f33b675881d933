"""Groups of pairs of similar length within a batch, so that forward passes compute little padding."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

MAX_GROUPS = 4
MIN_GROUP_SIZE = 16  # pairs, so that matrix products stay large
PAD_TO_MULTIPLE = 16  # tokens; kernels are compiled per shape, and the cache for them is limited


def length_groups(lengths: Tensor) -> list[Tensor]:
    """Split the pairs of a batch into groups of nearly equal size, the shortest pairs first.

    Args:
        lengths: Tokens of each pair, `(pairs,)`.

    Returns:
        Indices of the pairs of each group; a single group for a small batch.
    """
    groups = max(1, min(MAX_GROUPS, len(lengths) // MIN_GROUP_SIZE))
    return list(lengths.argsort(stable=True).tensor_split(groups))


def select_pairs(inputs: dict[str, Tensor], indices: Tensor) -> dict[str, Tensor]:
    """The inputs of some pairs, each `(pairs, tokens)`, without most columns that are padding in all of them."""
    used = inputs["attention_mask"][indices].any(0).nonzero()
    first, length = int(used[0]), int(used[-1] - used[0]) + 1
    length += -length % PAD_TO_MULTIPLE
    return {name: value[indices, first : first + length] for name, value in inputs.items()}


def can_split(model: nn.Module) -> bool:
    """Whether a model may run several forward passes before the backward pass.

    Not if it is copied to several devices, or if data parallelism writes into its buffers before each forward pass:
    the backward pass needs them unchanged.
    """
    if isinstance(model, DistributedDataParallel):
        return not model.broadcast_buffers
    return not isinstance(model, DataParallel)
