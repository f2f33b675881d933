"""Sizes that the layers of a model may have, and the best choice among them within a budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hfcompress.models.plan import PruningPlan
from hfcompress.pruning.costs.table import CostTable
from hfcompress.pruning.importance.importance import Importance, most_important
from hfcompress.pruning.search.dynamic import choose_levels

Sizes = tuple[tuple[int, int] | None, ...]
"""(heads, FFN neurons) of every layer of a model; None for a layer that is pruned."""


@dataclass(frozen=True)
class Levels:
    """Sizes of one sublayer, and the loss of pruning it alone to each of them.

    Attributes:
        sizes: Heads or FFN neurons kept, ascending from 0, shape `(levels,)`.
        losses: Loss of each level, shape `(levels,)`.
    """

    sizes: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True)
class SensitivityProfile:
    """Loss of every single cut of a model; the losses of several cuts add up as long as they are small.

    Attributes:
        layers: Levels of attention and FFN of every layer; None for a layer that is pruned already.
        layer_losses: Loss of pruning a layer as a whole, shape `(layers,)`.
        tail_losses: Loss of pruning this layer and all layers above it, shape `(layers + 1,)`; the last one is 0.
    """

    layers: list[tuple[Levels, Levels] | None]
    layer_losses: np.ndarray
    tail_losses: np.ndarray


@dataclass(frozen=True)
class _Options:
    """Sizes that one layer may have, None among them, with cost and loss of each."""

    sizes: list[tuple[int, int] | None]
    costs: np.ndarray
    losses: np.ndarray


def ffn_widths(full: int, multiple: int) -> np.ndarray:
    """FFN widths to choose from: multiples of `multiple`, spaced wider for larger widths, and the full width."""
    widths, step = [0], multiple
    while widths[-1] + step < full:
        widths.append(widths[-1] + step)
        if widths[-1] == 16 * step:
            step *= 2
    return np.array([*widths, full] if full else widths)


def best_sizes(profile: SensitivityProfile, table: CostTable, budget: float, coefficients: np.ndarray) -> Sizes | None:
    """Sizes within the budget with the least sum of losses.

    Since the last remaining layer has costs of its own, there is one dynamic programme for each layer in its role.

    Args:
        profile: Losses of single cuts.
        table: Costs.
        budget: Largest total cost.
        coefficients: Factors on the losses of every sublayer, shape `(layers, 2)`: attention, FFN. The factor of a
            whole layer is their mean.

    Returns:
        The sizes; None if no sizes with at least one head fit the budget.
    """
    inner = [_options(profile, table, index, coefficients[index], last=False) for index in range(len(profile.layers))]
    best: tuple[float, Sizes] | None = None
    for last, layer in enumerate(profile.layers):
        if layer is None:
            continue
        options = [*inner[:last], _options(profile, table, last, coefficients[last], last=True)]
        found = _solve_with_head(options, budget - table.fixed)
        loss = found[0] + profile.tail_losses[last + 1] if found else np.inf
        if found and (best is None or loss < best[0]):
            best = loss, (*found[1], *[None] * (len(profile.layers) - 1 - last))
    return best[1] if best else None


def least_cost(heads: list[int], table: CostTable) -> tuple[Sizes, float]:
    """The cheapest sizes and their cost: one layer, with its cheapest number of heads and no FFN.

    Args:
        heads: Number of heads of every layer, not all 0.
        table: Costs.
    """
    first = next(index for index, count in enumerate(heads) if count)
    options = [(table.total([(count, 0)]), count) for count in range(1, max(heads) + 1)]
    cost, count = min(option for option in options if option[1] <= heads[first])
    return tuple((count, 0) if index == first else None for index in range(len(heads))), cost


def total_cost(sizes: Sizes, table: CostTable) -> float:
    """Cost of a model with these sizes."""
    return table.total([size for size in sizes if size is not None])


def plan_of_sizes(sizes: Sizes, importance: Importance, current: PruningPlan) -> PruningPlan:
    """The plan that keeps the most important heads and FFN neurons, in the numbering of the original model."""
    return current.subset(
        (index, most_important(importance.heads[index], size[0]), most_important(importance.ffn[index], size[1]))
        for index, size in enumerate(sizes)
        if size is not None
    )


def _options(
    profile: SensitivityProfile, table: CostTable, index: int, coefficients: np.ndarray, last: bool
) -> _Options:
    """The Pareto-optimal sizes of a layer, with and without heads; the last layer cannot be pruned as a whole."""
    parts = profile.layers[index]
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
        losses = np.append(losses, coefficients.mean() * profile.layer_losses[index])
    with_head = np.array([bool(size and size[0]) for size in sizes])
    keep = np.union1d(
        _pareto_optimal(costs, losses, np.arange(len(sizes))), _pareto_optimal(costs, losses, with_head.nonzero()[0])
    )
    return _Options([sizes[option] for option in keep], costs[keep], losses[keep])


def _pareto_optimal(costs: np.ndarray, losses: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The indices in `among` that are Pareto-optimal in cost and loss."""
    order = among[np.lexsort((losses[among], costs[among]))]
    least = np.minimum.accumulate(losses[order])
    return order[np.append(True, least[1:] < least[:-1])] if len(order) else order


def _solve_with_head(options: list[_Options], budget: float) -> tuple[float, Sizes] | None:
    """Loss and best sizes with at least one head."""
    found = _solve(options, budget)
    if found is None or any(size and size[0] for size in found[1]):
        return found
    results = []
    for index, layer in enumerate(options):
        with_head = [option for option, size in enumerate(layer.sizes) if size and size[0]]
        if with_head:
            sizes = [layer.sizes[option] for option in with_head]
            narrowed = _Options(sizes, layer.costs[with_head], layer.losses[with_head])
            results.append(_solve([*options[:index], narrowed, *options[index + 1 :]], budget))
    return min((result for result in results if result), default=None, key=lambda result: result[0])


def _solve(options: list[_Options], budget: float) -> tuple[float, Sizes] | None:
    # The tolerance lets a cost of exactly the budget fit, however the subtraction of the fixed cost was rounded.
    tolerance = 1e-12 * max(budget, sum(float(layer.costs.max()) for layer in options))
    found = choose_levels([layer.losses for layer in options], [layer.costs for layer in options], budget + tolerance)
    if found is None:
        return None
    return found[1], tuple(layer.sizes[level] for layer, level in zip(options, found[0], strict=True))
