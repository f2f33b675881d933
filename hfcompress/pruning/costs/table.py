"""CostTable: the cost of every number of heads and every FFN width, in one unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hfcompress.models.architectures import architecture_of, encoder_layers, head_size
from hfcompress.models.plan import PruningPlan
from hfcompress.models.surgery import current_plan, pruned_copy

Points = dict[int, float]
"""Costs by size (heads of a layer, or FFN neurons), with linear interpolation between the sizes."""


@dataclass(frozen=True)
class CostTable:
    """Costs of the parts of an encoder.

    Attributes:
        unit: Unit of the costs, e.g. `seconds per document`.
        fixed: Cost of the parts that pruning does not change: embeddings, pooler, head; for times also tokenization.
        attention: Cost of an attention sublayer by its number of heads, `{heads: cost}`. With 0 heads, bias and norm
            remain.
        ffn: Cost of an FFN sublayer by its width, `{neurons: cost}`.
        last_attention: As `attention`, for the last layer, which may compute only the tokens that the head reads.
        last_ffn: As `ffn`, for the last layer.
    """

    unit: str
    fixed: float
    attention: Points
    ffn: Points
    last_attention: Points
    last_ffn: Points

    def attention_cost(self, heads: int, last: bool = False) -> float:
        """Cost of an attention sublayer with `heads` heads."""
        return _interpolated(self.last_attention if last else self.attention, heads)

    def ffn_cost(self, neurons: int, last: bool = False) -> float:
        """Cost of an FFN sublayer with `neurons` neurons."""
        return _interpolated(self.last_ffn if last else self.ffn, neurons)

    def total(self, sizes: Sequence[tuple[int, int]]) -> float:
        """Cost of a whole model.

        Args:
            sizes: (heads, FFN neurons) of each layer, from the first to the last.
        """
        cost = self.fixed
        for number, (heads, neurons) in enumerate(sizes, 1):
            last = number == len(sizes)
            cost += self.attention_cost(heads, last) + self.ffn_cost(neurons, last)
        return cost

    def of_plan(self, plan: PruningPlan) -> float:
        """Cost of the model pruned by a plan."""
        return self.total([(len(layer.heads), len(layer.ffn)) for layer in plan.layers])


def _interpolated(points: Points, size: int) -> float:
    if size in points:
        return points[size]
    sizes = sorted(points)
    return float(np.interp(size, sizes, [points[known] for known in sizes]))


def macs_table(config: PretrainedConfig, current: PruningPlan) -> CostTable:
    """MACs per token in the linear layers of the encoder, without the attention products."""
    heads, neurons = current.heads_of, current.ffn_of
    attention = {0: 0.0, heads: 4.0 * config.hidden_size * head_size(config) * heads}
    ffn = {0: 0.0, neurons: (1.0 + architecture_of(config).ffn_blocks) * config.hidden_size * neurons}
    return CostTable("MACs per token", 0.0, attention, ffn, attention, ffn)


def parameter_table(model: PreTrainedModel) -> CostTable:
    """Parameters of a whole model, with embeddings and head, counted on pruned copies of it."""
    current = current_plan(model)
    layers = encoder_layers(model)
    total = _parameters(model)
    points: list[Points] = []
    for kind in ("heads", "ffn"):
        index = max(range(len(layers)), key=lambda number: len(getattr(current.layers[number], kind)))
        layer = current.layers[index]
        kept = getattr(layer, kind)
        half = _parameters(layers[index]) / 2  # each sublayer gets half of what both share
        points.append({len(kept): half})
        for count in (0, 1):
            pruned = replace(layer, **{kind: kept[:count]})
            layer_plans = (*current.layers[:index], pruned, *current.layers[index + 1 :])
            if count < len(kept) and any(other.heads for other in layer_plans):
                plan = replace(current, layers=layer_plans)
                points[-1][count] = half - total + _parameters(pruned_copy(model, plan))
    attention, ffn = points
    whole = CostTable("parameters", 0.0, attention, ffn, attention, ffn)
    return replace(whole, fixed=total - whole.of_plan(current))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
