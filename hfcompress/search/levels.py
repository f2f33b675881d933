"""The sizes that every attention and FFN sublayer may have, and the best choice among them under a budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hfcompress.costs import CostTable
from hfcompress.importance.importance import Importance, most_important
from hfcompress.plan import LayerPlan, PruningPlan
from hfcompress.search.dynamic import choose_levels

Sizes = tuple[tuple[int, int], ...]
"""(heads, FFN neurons) of the lowest layers of a model; the layers above them are gone."""


@dataclass(frozen=True)
class Sublayer:
    """Sizes that a sublayer may have.

    Attributes:
        sizes: Heads or FFN neurons kept at each level, ascending from 0, shape `(levels,)`.
        errors: Error of each level, shape `(levels,)`.
    """

    sizes: np.ndarray
    errors: np.ndarray


def sublayers(importance: Importance, multiple: int) -> list[tuple[Sublayer, Sublayer]]:
    """Attention and FFN of every layer, with the errors that the importance gives their levels."""
    result = []
    for head_errors, ffn_errors in zip(importance.head_errors, importance.ffn_errors, strict=True):
        heads = np.arange(len(head_errors))
        widths = ffn_widths(len(ffn_errors) - 1, multiple)
        result.append((_sublayer(heads, head_errors.numpy()), _sublayer(widths, ffn_errors.numpy())))
    return result


def ffn_widths(full: int, multiple: int) -> np.ndarray:
    """Widths to choose from: multiples of `multiple` whose distance doubles with the width, and the full width."""
    widths, step = [0], multiple
    while widths[-1] + step < full:
        widths.append(widths[-1] + step)
        if widths[-1] == 16 * step:
            step *= 2
    return np.array([*widths, full] if full else widths)


def best_sizes(
    model: list[tuple[Sublayer, Sublayer]], table: CostTable, budget: float, coefficients: np.ndarray
) -> Sizes | None:
    """Sizes of least weighted error whose cost is within the budget.

    Every number of lower layers is tried, since the last layer that is left has costs of its own.

    Args:
        model: What the sublayers can be cut to.
        table: Costs.
        budget: Largest total cost.
        coefficients: Weight of the error of every sublayer, shape `(layers, 2)`: attention, FFN.

    Returns:
        The sizes; None if nothing with a head in it fits the budget.
    """
    gone = [
        sum(weight * part.errors[0] for weight, part in zip(*row, strict=True))
        for row in zip(coefficients, model, strict=True)
    ]
    best: tuple[float, Sizes] | None = None
    for count in range(1, len(model) + 1):
        found = _with_a_head(model[:count], table, budget, coefficients)
        if found and (best is None or found[0] + sum(gone[count:]) < best[0]):
            best = found[0] + sum(gone[count:]), found[1]
    return best[1] if best else None


def least_cost(model: list[tuple[Sublayer, Sublayer]], table: CostTable) -> tuple[Sizes, float]:
    """The cheapest sizes that there are: the cheapest number of heads in one layer, nothing below it, and no FFN."""
    options = []
    for place, (attention, _) in enumerate(model):
        for heads in attention.sizes[1:]:
            sizes = (*((0, 0),) * place, (int(heads), 0))
            options.append((table.total(sizes), sizes))
    cost, sizes = min(options, key=lambda option: option[0])  # of equal ones that with the fewest layers
    return sizes, cost


def plan_of_sizes(sizes: Sizes, importance: Importance, current: PruningPlan) -> PruningPlan:
    """The plan that keeps the most important structures of each size, in the numbering of the first teacher."""
    layers = []
    for place, (heads, neurons) in enumerate(sizes):
        layer = current.layers[place]
        kept_heads = most_important(importance.heads[place], heads)
        kept_ffn = most_important(importance.ffn[place], neurons)
        layers.append(
            LayerPlan(
                layer.layer,
                tuple(layer.heads[place] for place in kept_heads),
                tuple(layer.ffn[place] for place in kept_ffn),
            )
        )
    return PruningPlan(current.layers_of, current.heads_of, current.ffn_of, tuple(layers))


def _sublayer(sizes: np.ndarray, errors: np.ndarray) -> Sublayer:
    return Sublayer(sizes, errors[len(errors) - 1 - sizes])


def _with_a_head(
    model: list[tuple[Sublayer, Sublayer]], table: CostTable, budget: float, coefficients: np.ndarray
) -> tuple[float, Sizes] | None:
    """Best sizes for just these layers, with at least one head among them."""
    found = _solve(model, table, budget, coefficients, None)
    if found is None or any(heads for heads, _ in found[1]):
        return found
    options = [_solve(model, table, budget, coefficients, layer) for layer in range(len(model))]
    return min((option for option in options if option), default=None)


def _solve(
    model: list[tuple[Sublayer, Sublayer]],
    table: CostTable,
    budget: float,
    coefficients: np.ndarray,
    needs_head: int | None,
) -> tuple[float, Sizes] | None:
    errors, costs, sizes = [], [], []
    for number, parts in enumerate(model):
        last = number == len(model) - 1
        for kind, (part, price) in enumerate(zip(parts, (table.attention_cost, table.ffn_cost), strict=True)):
            allowed = slice(1, None) if kind == 0 and number == needs_head else slice(None)
            sizes.append(part.sizes[allowed])
            errors.append(coefficients[number, kind] * part.errors[allowed])
            costs.append(np.array([price(int(size), last) for size in part.sizes[allowed]]))
    if any(not len(options) for options in sizes):
        return None
    # The subtraction rounds; what costs exactly the budget fits.
    found = choose_levels(errors, costs, budget - table.fixed + 1e-12 * budget)
    if found is None:
        return None
    chosen = [int(options[level]) for options, level in zip(sizes, found[0], strict=True)]
    return found[1], tuple(zip(chosen[::2], chosen[1::2], strict=True))
