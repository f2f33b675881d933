"""Change the linear layer that computes a model's logits. Only this module edits or replaces it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hfcompress.models.modular import record_score_layer, score_layer

ModelT = TypeVar("ModelT", bound=PreTrainedModel)


class LogOdds(nn.Module):
    """Log-odds of a label against all others, `log p - log(1 - p)`, in place of the layer that computes the logits.

    Args:
        logits: That layer.
        label: Number of the label.
    """

    def __init__(self, logits: nn.Module, label: int) -> None:
        super().__init__()
        self.logits, self.label = logits, label

    def forward(self, features: Tensor) -> Tensor:
        """Log-odds, shape `(..., 1)`."""
        logits = self.logits(features)
        before, label, after = logits.tensor_split([self.label, self.label + 1], dim=-1)
        return label - torch.cat([before, after], -1).logsumexp(-1, keepdim=True)


def select_score(model: ModelT, score: Sequence[float] | int) -> ModelT:
    """Give a classifier, in place, one output, and return it.

    Args:
        model: A classifier of a supported family, modular or not.
        score: Weight of each logit in the score; or the number of a label, whose log-odds against all others are the
            score. Such a model has a `LogOdds` in it, and cannot be saved.

    Raises:
        ModelError: Its logits are no linear function of its last hidden features.
    """
    layer: Any = model.get_submodule(path := score_layer(model))
    if isinstance(score, int):
        model.set_submodule(path, LogOdds(layer, score))
    else:
        for name, parameter in [*layer.named_parameters()]:
            combined = torch.tensor([score]).to(parameter) @ parameter.detach()
            setattr(layer, name, nn.Parameter(combined, requires_grad=parameter.requires_grad))
        layer.out_features = 1
        record_score_layer(model, out_features=1)
    vars(model)["num_labels"] = model.config.num_labels = 1  # also the labels' names
    model.config.problem_type = None
    return model


@torch.no_grad()
def rescale_score(model: ModelT, scale: float, shift: float) -> ModelT:
    """Scale and shift, in place, the logit of a cross-encoder by the weights of its last layer, and return it.

    Args:
        model: A cross-encoder with one output, modular or not. A last layer without a bias gets one.
        scale: Factor of the logit.
        shift: What is added to it.

    Raises:
        ModelError: The logit is no linear function of the last hidden features.
    """
    layer: Any = model.get_submodule(score_layer(model))
    bias = torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias
    for name, values in (("weight", scale * layer.weight.double()), ("bias", scale * bias.double() + shift)):
        changed = values.to(layer.weight.dtype)
        setattr(layer, name, nn.Parameter(changed, requires_grad=layer.weight.requires_grad))
    record_score_layer(model, bias=True)
    return model
