"""The sizes that the layers of a model may have, and the best choice among them under a budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hfcompress.costs import CostTable
from hfcompress.importance.importance import Importance, most_important
from hfcompress.plan import LayerPlan, PruningPlan
from hfcompress.search.dynamic import choose_levels

Sizes = tuple[tuple[int, int] | None, ...]
"""(heads, FFN neurons) of every layer of a model; None for a layer that goes."""


@dataclass(frozen=True)
class Levels:
    """What a sublayer may be cut to, and what that loses by itself.

    Attributes:
        sizes: Heads or FFN neurons kept, ascending from 0, shape `(levels,)`.
        losses: Loss of each level, shape `(levels,)`.
    """

    sizes: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True)
class Landscape:
    """What every single cut loses, all else staying as it is; these losses add up as long as they are small.

    Attributes:
        layers: Attention and FFN of every layer; None for a layer that is gone already.
        gone: Loss of doing without a layer, shape `(layers,)`.
        above: Loss of doing without all layers from this one on, shape `(layers + 1,)`; the last is 0.
    """

    layers: list[tuple[Levels, Levels] | None]
    gone: np.ndarray
    above: np.ndarray


@dataclass(frozen=True)
class _Options:
    """What a layer may become: sizes, or None, with cost and loss."""

    sizes: list[tuple[int, int] | None]
    costs: np.ndarray
    losses: np.ndarray


def ffn_widths(full: int, multiple: int) -> np.ndarray:
    """Widths to choose from: multiples of `multiple` whose distance doubles with the width, and the full width."""
    widths, step = [0], multiple
    while widths[-1] + step < full:
        widths.append(widths[-1] + step)
        if widths[-1] == 16 * step:
            step *= 2
    return np.array([*widths, full] if full else widths)


def best_sizes(landscape: Landscape, table: CostTable, budget: float, coefficients: np.ndarray) -> Sizes | None:
    """Sizes whose cost is within the budget, and whose losses add up to least.

    Every last layer is tried, since the last layer that is left has costs of its own.

    Args:
        landscape: What every cut loses.
        table: Costs.
        budget: Largest total cost.
        coefficients: Weight of the losses of every sublayer, shape `(layers, 2)`: attention, FFN; that of a whole layer
            is the mean of both.

    Returns:
        The sizes; None if nothing with a head in it fits the budget.
    """
    inner = [_options(landscape, table, number, coefficients[number], False) for number in range(len(landscape.layers))]
    best: tuple[float, Sizes] | None = None
    for last, layer in enumerate(landscape.layers):
        if layer is None:
            continue
        options = [*inner[:last], _options(landscape, table, last, coefficients[last], True)]
        found = _with_a_head(options, budget - table.fixed)
        loss = found[0] + landscape.above[last + 1] if found else np.inf
        if found and (best is None or loss < best[0]):
            best = loss, (*found[1], *[None] * (len(landscape.layers) - 1 - last))
    return best[1] if best else None


def least_cost(heads: list[int], table: CostTable) -> tuple[Sizes, float]:
    """The cheapest sizes that there are: the cheapest number of heads in one layer and no FFN.

    Args:
        heads: Number of heads of every layer; one has some.
        table: Costs.
    """
    place = next(place for place, count in enumerate(heads) if count)
    options = [(table.total([(count, 0)]), count) for count in range(1, max(heads) + 1)]
    cost, count = min(option for option in options if option[1] <= heads[place])
    return tuple((count, 0) if number == place else None for number in range(len(heads))), cost


def total_cost(sizes: Sizes, table: CostTable) -> float:
    """Cost of a whole model."""
    return table.total([size for size in sizes if size is not None])


def plan_of_sizes(sizes: Sizes, importance: Importance, current: PruningPlan) -> PruningPlan:
    """The plan that keeps the most important structures of each size, in the numbering of the first teacher."""
    layers = []
    for place, size in enumerate(sizes):
        if size is None:
            continue
        layer = current.layers[place]
        kept_heads = most_important(importance.heads[place], size[0])
        kept_ffn = most_important(importance.ffn[place], size[1])
        layers.append(
            LayerPlan(
                layer.layer,
                tuple(layer.heads[index] for index in kept_heads),
                tuple(layer.ffn[index] for index in kept_ffn),
            )
        )
    return PruningPlan(current.layers_of, current.heads_of, current.ffn_of, tuple(layers))


def _options(landscape: Landscape, table: CostTable, number: int, coefficients: np.ndarray, last: bool) -> _Options:
    """All that a layer may become; the last one cannot go. What costs and loses more than another is left out."""
    parts = landscape.layers[number]
    if parts is None:
        return _Options([None], np.zeros(1), np.zeros(1))
    attention, ffn = parts
    heads = np.array([table.attention_cost(int(size), last) for size in attention.sizes])
    neurons = np.array([table.ffn_cost(int(size), last) for size in ffn.sizes])
    costs = (heads[:, None] + neurons).flatten()
    losses = (coefficients[0] * attention.losses[:, None] + coefficients[1] * ffn.losses).flatten()
    sizes: list[tuple[int, int] | None] = [(int(few), int(width)) for few in attention.sizes for width in ffn.sizes]
    if not last:
        sizes.append(None)
        costs = np.append(costs, 0.0)
        losses = np.append(losses, coefficients.mean() * landscape.gone[number])
    headed = np.array([bool(size and size[0]) for size in sizes])
    keep = np.union1d(
        _undominated(costs, losses, np.arange(len(sizes))), _undominated(costs, losses, headed.nonzero()[0])
    )
    return _Options([sizes[index] for index in keep], costs[keep], losses[keep])


def _undominated(costs: np.ndarray, losses: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Those that no other one beats in cost and loss."""
    order = among[np.lexsort((losses[among], costs[among]))]
    least = np.minimum.accumulate(losses[order])
    return order[np.append(True, least[1:] < least[:-1])] if len(order) else order


def _with_a_head(options: list[_Options], budget: float) -> tuple[float, Sizes] | None:
    """Best sizes with at least one head among them."""
    found = _solve(options, budget)
    if found is None or any(size and size[0] for size in found[1]):
        return found
    results = []
    for place, layer in enumerate(options):
        allowed = [index for index, size in enumerate(layer.sizes) if size and size[0]]
        if allowed:
            narrowed = _Options([layer.sizes[index] for index in allowed], layer.costs[allowed], layer.losses[allowed])
            results.append(_solve([*options[:place], narrowed, *options[place + 1 :]], budget))
    return min((result for result in results if result), default=None, key=lambda result: result[0])


def _solve(options: list[_Options], budget: float) -> tuple[float, Sizes] | None:
    # What costs exactly the budget fits, however the subtraction of the fixed cost was rounded.
    tolerance = 1e-12 * max(budget, sum(float(layer.costs.max()) for layer in options))
    found = choose_levels([layer.losses for layer in options], [layer.costs for layer in options], budget + tolerance)
    if found is None:
        return None
    return found[1], tuple(layer.sizes[level] for layer, level in zip(options, found[0], strict=True))
