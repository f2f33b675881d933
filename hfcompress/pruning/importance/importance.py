"""Importance of heads and FFN neurons: the common result of all importance methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hfcompress.models.plan import PruningPlan


def unchanged(plan: PruningPlan) -> dict[str, Tensor]:
    """No updated weights: what a plan keeps stays as it is."""
    return {}


@dataclass(frozen=True)
class Importance:
    """Importance of every head and FFN neuron of a model, and the error of pruning the least important ones.

    Attributes:
        method: The method that measured it.
        heads: For each layer a tensor `(heads,)`; larger is more important.
        ffn: For each layer a tensor `(neurons,)`.
        head_errors: For each layer a tensor `(heads + 1,)`: error without the k least important heads.
        ffn_errors: For each layer a tensor `(neurons + 1,)`.
        weights: Returns the updated weights for a plan (in the numbering of the original model), by their names in the
            pruned model; empty for methods that do not update weights.
        notes: Messages about the measurement to be shown to the user.
    """

    method: str
    heads: list[Tensor]
    ffn: list[Tensor]
    head_errors: list[Tensor]
    ffn_errors: list[Tensor]
    weights: Callable[[PruningPlan], dict[str, Tensor]] = unchanged
    notes: tuple[str, ...] = ()

    @classmethod
    def additive(cls, method: str, heads: list[Tensor], ffn: list[Tensor]) -> Importance:
        """Importance whose errors are the sums of the scores of all pruned structures."""
        return cls(method, heads, ffn, [_sums(scores) for scores in heads], [_sums(scores) for scores in ffn])


def most_important(scores: Tensor, count: int) -> list[int]:
    """Indices of the `count` largest scores, ascending; of equal scores the first ones."""
    return sorted(torch.argsort(scores, descending=True, stable=True)[:count].tolist())


def _sums(scores: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.float64), scores.double().sort().values.cumsum(0)])
