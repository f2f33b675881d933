"""Passes over parts of a batch, so that pairs of like length are padded together and few tokens are padding."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

MOST_PARTS = 4
FEWEST_PAIRS = 16  # of a part, so that matrix products stay large
MULTIPLE = 16  # of tokens; kernels are made for each shape, and made anew where there are too many to keep


def parts_by_length(lengths: Tensor) -> list[Tensor]:
    """Split the pairs of a batch into parts of nearly equal size, the shortest first.

    Args:
        lengths: Tokens of each pair, `(pairs,)`.

    Returns:
        Places of the pairs of each part; one part where there are too few for more.
    """
    parts = max(1, min(MOST_PARTS, len(lengths) // FEWEST_PAIRS))
    return list(lengths.argsort(stable=True).tensor_split(parts))


def part_of(inputs: dict[str, Tensor], places: Tensor) -> dict[str, Tensor]:
    """The inputs of some pairs, each `(pairs, tokens)`, without most columns in which all of these are padded."""
    used = inputs["attention_mask"][places].any(0).nonzero()
    first, length = int(used[0]), int(used[-1] - used[0]) + 1
    length += -length % MULTIPLE
    return {name: value[places, first : first + length] for name, value in inputs.items()}


def can_split(model: nn.Module) -> bool:
    """Whether a model may pass more than once before the gradient is taken.

    Not where it is copied to several devices, or where data parallelism would write into its buffers before each pass,
    which the gradient of the pass before needs unchanged.
    """
    if isinstance(model, DistributedDataParallel):
        return not model.broadcast_buffers
    return not isinstance(model, DataParallel)
