"""Weights set to zero one by one: the smallest in magnitude, anywhere in a matrix or two of every four neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hfcompress.architectures import architecture_of, encoder_layers

TWO, FOUR = 2, 4  # so many of so many neighbours may stay in the pattern 2:4


def sparse_modules(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The modules that lose weights: the linear layers of the encoder, by their names in the model."""
    prefix = architecture_of(model.config).layers
    return {
        f"{prefix}.{name}": module
        for name, module in encoder_layers(model).named_modules()
        if isinstance(module, nn.Linear)
    }


def kept_weights(weight: Tensor, pattern: str, sparsity: float, share: float = 1.0) -> Tensor:
    """Which weights of a matrix stay when the smallest go (magnitude pruning; Han et al., NeurIPS 2015).

    Args:
        weight: Shape `(outputs, inputs)`. What is zero already goes first.
        pattern: `unstructured` takes the smallest of the matrix, `2:4` the two smallest of every four neighbours in a
            row (Mishra et al., 2021); of a rest of less than four, those beyond two.
        sparsity: Share of the weights that goes in `unstructured`.
        share: Share of these that goes now, the smallest first.

    Returns:
        True for what stays; bool of the shape of `weight`.
    """
    magnitude = weight.detach().abs().float()
    if pattern == "2:4":
        going = _beyond_two_of_four(magnitude)
        count = round(share * int(going.sum()))
        magnitude = magnitude.masked_fill(~going, torch.inf)
    else:
        count = round(share * sparsity * magnitude.numel())
    kept = torch.ones(magnitude.numel(), dtype=torch.bool, device=weight.device)
    kept[magnitude.flatten().topk(count, largest=False, sorted=False).indices] = False
    return kept.view_as(weight)


def sparsify(model: PreTrainedModel, pattern: str, sparsity: float, share: float = 1.0) -> dict[str, Tensor]:
    """Set weights of a model to zero; each matrix loses the same share.

    The tensors are new, so a copy that shares memory with this model keeps its weights.

    Args:
        model: The model, changed in place.
        pattern: As for `kept_weights`; so `sparsity` and `share`.
        sparsity: See there.
        share: See there.

    Returns:
        What stays of the weight of every module that lost some, by the module's name.
    """
    masks = {}
    for name, module in sparse_modules(model).items():
        masks[name] = kept_weights(module.weight, pattern, sparsity, share)
        module.weight.data = module.weight.data * masks[name]
    return masks


def zero_share(model: PreTrainedModel) -> float:
    """Share of the weights in the encoder's linear layers that are zero."""
    weights = [module.weight for module in sparse_modules(model).values()]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / max(1, sum(weight.numel() for weight in weights))


def _beyond_two_of_four(magnitude: Tensor) -> Tensor:
    """What the pattern 2:4 leaves no place for; a row's end is filled up to four with what goes first."""
    outputs, inputs = magnitude.shape
    filled = nn.functional.pad(magnitude, (0, -inputs % FOUR), value=-1.0).view(outputs, -1, FOUR)
    going = torch.zeros_like(filled, dtype=torch.bool)
    going.scatter_(2, filled.topk(FOUR - TWO, largest=False).indices, True)
    return going.view(outputs, -1)[:, :inputs]
