"""CostTable: what every number of heads and every FFN width costs, in one unit; the search adds and compares these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hfcompress.architectures import architecture_of, encoder_layers, head_size
from hfcompress.plan import PruningPlan
from hfcompress.surgery import current_plan, pruned_copy

Points = dict[int, float]
"""Cost at some sizes (heads of a layer, or FFN neurons); linear between them."""


@dataclass(frozen=True)
class CostTable:
    """Costs of the parts of an encoder.

    Attributes:
        unit: What the costs are, e.g. `seconds a document`.
        fixed: Cost of all that pruning leaves alone: embeddings, pooler, head; tokenizing where time is counted.
        attention: Cost of the attention sublayer by the number of its heads, `{heads: cost}`; 0 heads leave bias and
            norm.
        ffn: Cost of the FFN sublayer by its width, `{neurons: cost}`.
        last_attention: The same for the last layer, which may compute only what the head reads.
        last_ffn: The same for the last layer.
    """

    unit: str
    fixed: float
    attention: Points
    ffn: Points
    last_attention: Points
    last_ffn: Points

    def attention_cost(self, heads: int, last: bool = False) -> float:
        """Cost of an attention sublayer with so many heads."""
        return _interpolated(self.last_attention if last else self.attention, heads)

    def ffn_cost(self, neurons: int, last: bool = False) -> float:
        """Cost of an FFN sublayer with so many neurons."""
        return _interpolated(self.last_ffn if last else self.ffn, neurons)

    def total(self, sizes: Sequence[tuple[int, int]]) -> float:
        """Cost of a whole model.

        Args:
            sizes: (heads, FFN neurons) of each layer, the last one last.
        """
        cost = self.fixed
        for number, (heads, neurons) in enumerate(sizes, 1):
            last = number == len(sizes)
            cost += self.attention_cost(heads, last) + self.ffn_cost(neurons, last)
        return cost

    def of_plan(self, plan: PruningPlan) -> float:
        """Cost of the model that a plan leaves."""
        return self.total([(len(layer.heads), len(layer.ffn)) for layer in plan.layers])


def _interpolated(points: Points, size: int) -> float:
    if size in points:
        return points[size]
    sizes = sorted(points)
    return float(np.interp(size, sizes, [points[known] for known in sizes]))


def flops_table(config: PretrainedConfig, current: PruningPlan) -> CostTable:
    """Multiply-adds a token in the linear layers of the encoder (attention products left out)."""
    heads, neurons = current.heads_of, current.ffn_of
    attention = {0: 0.0, heads: 4.0 * config.hidden_size * head_size(config) * heads}
    ffn = {0: 0.0, neurons: (1.0 + architecture_of(config).ffn_blocks) * config.hidden_size * neurons}
    return CostTable("multiply-adds a token", 0.0, attention, ffn, attention, ffn)


def parameter_table(model: PreTrainedModel) -> CostTable:
    """Parameters of a whole model, embeddings and head included, counted on models that are really pruned."""
    current = current_plan(model)
    layers = encoder_layers(model)
    total = _parameters(model)
    points: list[Points] = []
    for kind in ("heads", "ffn"):
        place = max(range(len(layers)), key=lambda number: len(getattr(current.layers[number], kind)))
        layer = current.layers[place]
        kept = getattr(layer, kind)
        half = _parameters(layers[place]) / 2  # the layer itself is shared out to its sublayers
        points.append({len(kept): half})
        for count in (0, 1):
            cut = replace(layer, **{kind: kept[:count]})
            others = (*current.layers[:place], cut, *current.layers[place + 1 :])
            if count < len(kept) and any(other.heads for other in others):
                plan = replace(current, layers=others)
                points[-1][count] = half - total + _parameters(pruned_copy(model, plan))
    attention, ffn = points
    whole = CostTable("parameters", 0.0, attention, ffn, attention, ffn)
    return replace(whole, fixed=total - whole.of_plan(current))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
