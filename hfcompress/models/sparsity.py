"""Unstructured and 2:4 sparsity: set the weights of smallest magnitude to zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hfcompress.models.architectures import encoder_linears

TWO, FOUR = 2, 4  # the pattern 2:4 keeps at most two of four neighbouring weights

sparse_modules = encoder_linears
"""The modules that become sparse, by their names in the model."""


def kept_weights(weight: Tensor, pattern: str, sparsity: float, share: float = 1.0) -> Tensor:
    """Mask of the weights that magnitude pruning keeps (Han et al., NeurIPS 2015).

    Args:
        weight: Shape `(outputs, inputs)`. Zero weights are pruned first.
        pattern: `unstructured` prunes the smallest weights of the matrix, `2:4` the two smallest of every four
            neighbours in a row (Mishra et al., 2021). Of a remainder of three neighbours it prunes one, of fewer none.
        sparsity: Share of the weights to prune if `unstructured`.
        share: Share of these weights to prune now, the smallest first.

    Returns:
        True for kept weights; bool of the shape of `weight`.
    """
    magnitude = weight.detach().abs().float()
    if pattern == "2:4":
        pruned = _beyond_two_of_four(magnitude)
        count = round(share * int(pruned.sum()))
        magnitude = magnitude.masked_fill(~pruned, torch.inf)
    else:
        count = round(share * sparsity * magnitude.numel())
    kept = torch.ones(magnitude.numel(), dtype=torch.bool, device=weight.device)
    kept[magnitude.flatten().topk(count, largest=False, sorted=False).indices] = False
    return kept.view_as(weight)


def sparsify(model: PreTrainedModel, pattern: str, sparsity: float, share: float = 1.0) -> dict[str, Tensor]:
    """Set weights of a model to zero, in place, with the same sparsity in each matrix.

    The tensors are new, so a copy that shares memory with this model keeps its weights. Other arguments are those of
    `kept_weights`.

    Returns:
        Masks of the kept weights by the names of their modules.
    """
    masks = {}
    for name, module in sparse_modules(model).items():
        masks[name] = kept_weights(module.weight, pattern, sparsity, share)
        module.weight.data = module.weight.data * masks[name]
    return masks


def zero_share(model: PreTrainedModel) -> float:
    """Share of zero weights in the linear layers of the encoder."""
    weights = [module.weight for module in sparse_modules(model).values()]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / max(1, sum(weight.numel() for weight in weights))


def _beyond_two_of_four(magnitude: Tensor) -> Tensor:
    """Mask of the weights that the pattern 2:4 prunes; a row is padded to a multiple of four with smaller values."""
    outputs, inputs = magnitude.shape
    padded = nn.functional.pad(magnitude, (0, -inputs % FOUR), value=-1.0).view(outputs, -1, FOUR)
    pruned = torch.zeros_like(padded, dtype=torch.bool)
    pruned.scatter_(2, padded.topk(FOUR - TWO, largest=False).indices, True)
    return pruned.view(outputs, -1)[:, :inputs]
