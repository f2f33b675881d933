"""Importance of heads and FFN neurons: the one interface of all signals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hfcompress.plan import PruningPlan


def unchanged(plan: PruningPlan) -> dict[str, Tensor]:
    """No new weights: the survivors of a plan stay as they are."""
    return {}


@dataclass(frozen=True)
class Importance:
    """Importance of every head and FFN neuron of a model, by layer, and the error of doing without the least of them.

    Attributes:
        method: How it was found.
        heads: For each layer a tensor `(heads,)`; larger means worse to lose.
        ffn: For each layer a tensor `(neurons,)`.
        head_errors: For each layer a tensor `(heads + 1,)`: error without the k least important heads.
        ffn_errors: For each layer a tensor `(neurons + 1,)`.
        weights: For a plan in the numbering of the first teacher, the weights that go with it, by their names in the
            pruned model; empty where the survivors stay as they are.
        notes: What the user should know about how it was found.
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
        """Importance whose errors are the sums of the scores of what is gone."""
        return cls(method, heads, ffn, [_sums(scores) for scores in heads], [_sums(scores) for scores in ffn])


def most_important(scores: Tensor, count: int) -> list[int]:
    """Positions of the `count` largest scores, ascending; of equal ones the first."""
    return sorted(torch.argsort(scores, descending=True, stable=True)[:count].tolist())


def _sums(scores: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.float64), scores.double().sort().values.cumsum(0)])
