"""Search for plans that a stock config can describe: whole layers, and one FFN width for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, islice

from hfcompress.errors import PlanError
from hfcompress.models.plan import PruningPlan
from hfcompress.pruning.costs.table import CostTable
from hfcompress.pruning.importance.importance import Importance, most_important
from hfcompress.pruning.search.free import SearchResult, out_of_reach
from hfcompress.pruning.search.levels import ffn_widths
from hfcompress.utils.progress import progress_bar


def search_stock(
    importance: Importance,
    current: PruningPlan,
    table: CostTable,
    budgets: Sequence[float],
    plan_loss: Callable[[PruningPlan], float],
    *,
    is_stock: Callable[[PruningPlan], bool],
    ffn_multiple: int = 32,
    steps: int = 12,
    progress: bool = True,
) -> list[SearchResult]:
    """Find a stock plan for each budget: the one with the least calibration loss of those evaluated.

    For every number of layers the widest FFN within the budget is taken, with the choices of layers that have the least
    error by importance.

    Args:
        importance: Importance of the model's heads and FFN neurons.
        current: The plan that the model carries, of stock shape.
        table: Costs; the budgets are in its unit.
        budgets: Largest costs, in any order.
        plan_loss: Calibration loss of a plan; smaller is better.
        is_stock: Whether the pruned model needs no custom code in its family.
        ffn_multiple: FFN widths are multiples of this.
        steps: Largest number of plans to evaluate for each budget.
        progress: Show a progress bar.

    Returns:
        The results, in the order of the budgets.

    Raises:
        PlanError: A budget is out of reach, or the model is not of stock shape.
    """
    if not current.is_stock:
        raise PlanError(
            "The model has uneven layers already",
            value=f"{len(current.layers)} layers of {current.heads_of} heads at most",
            expected="a model of stock shape: all heads and one FFN width in every layer",
            remedy="use structure: free, or begin with the teacher",
        )
    losses: dict[PruningPlan, float] = {}
    results = []
    with progress_bar(total=len(budgets) * steps, desc="search", unit="plan", disable=not progress, leave=False) as bar:
        for budget in budgets:
            plans = _candidates(importance, current, table, budget, is_stock, ffn_multiple, steps)
            if not plans:
                least = _plan(importance, current, (0,), min(ffn_multiple, len(current.layers[0].ffn)))
                raise out_of_reach(table, current, budget, least, plan_loss(least))
            for plan in plans:
                if plan not in losses:
                    losses[plan] = plan_loss(plan)
                bar.update()
            best = min(plans, key=losses.__getitem__)
            results.append(SearchResult(best, table.of_plan(best), losses[best], len(plans)))
    return results


def _candidates(
    importance: Importance,
    current: PruningPlan,
    table: CostTable,
    budget: float,
    is_stock: Callable[[PruningPlan], bool],
    multiple: int,
    steps: int,
) -> list[PruningPlan]:
    """For every number of layers, the widest FFN within the budget and the choices of layers with the least error."""
    widths = ffn_widths(len(current.layers[0].ffn), multiple)[1:]
    shapes = []
    for count in range(1, len(current.layers) + 1):
        within = [int(width) for width in widths if table.total([(current.heads_of, int(width))] * count) <= budget]
        if within:
            shapes.append((count, max(within)))
    plans = []
    for count, width in shapes:
        choices = _by_error(importance, len(current.layers), count)
        stock = filter(is_stock, (_plan(importance, current, indices, width) for indices in choices))
        plans += list(islice(stock, max(1, steps // len(shapes))))
    return plans[-steps:]  # the deeper ones, if there are too many


def _by_error(importance: Importance, layers: int, count: int) -> Iterator[tuple[int, ...]]:
    """Choices of `count` layers, in ascending order of the summed error of the layers that they prune."""
    errors = [
        float(heads[-1] + ffn[-1]) for heads, ffn in zip(importance.head_errors, importance.ffn_errors, strict=True)
    ]
    for pruned in sorted(
        combinations(range(layers), layers - count), key=lambda indices: sum(errors[index] for index in indices)
    ):
        yield tuple(index for index in range(layers) if index not in pruned)


def _plan(importance: Importance, current: PruningPlan, indices: Sequence[int], width: int) -> PruningPlan:
    """The plan that keeps all heads and the `width` most important FFN neurons of these layers."""
    heads = range(current.heads_of)
    return current.subset((index, heads, most_important(importance.ffn[index], width)) for index in indices)
