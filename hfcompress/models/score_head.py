"""Change the linear layer that computes a model's logits. Only this module edits it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from hfcompress.models.modular import record_score_layer, score_layer

ModelT = TypeVar("ModelT", bound=PreTrainedModel)


def select_score(model: ModelT, weights: Sequence[float]) -> ModelT:
    """Give a classifier, in place, one output, which is a weighted sum of its logits, and return it.

    Args:
        model: A classifier of a supported family, modular or not.
        weights: Weight of each logit.

    Raises:
        ModelError: Its logits are no linear function of its last hidden features.
    """
    layer: Any = model.get_submodule(score_layer(model))
    for name, parameter in [*layer.named_parameters()]:
        combined = torch.tensor([weights]).to(parameter) @ parameter.detach()
        setattr(layer, name, nn.Parameter(combined, requires_grad=parameter.requires_grad))
    vars(model)["num_labels"] = layer.out_features = model.config.num_labels = 1  # also the labels' names
    record_score_layer(model, out_features=1)
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
