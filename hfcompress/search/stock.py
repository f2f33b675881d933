"""Plans that a stock config can describe: whole layers and one FFN width for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, islice

from hfcompress.costs import CostTable
from hfcompress.errors import PlanError
from hfcompress.importance.importance import Importance, most_important
from hfcompress.plan import LayerPlan, PruningPlan
from hfcompress.progress import progress_bar
from hfcompress.search.family import Found, out_of_reach
from hfcompress.search.levels import ffn_widths


def search_stock(
    importance: Importance,
    current: PruningPlan,
    table: CostTable,
    budgets: Sequence[float],
    loss_of: Callable[[PruningPlan], float],
    loads_anywhere: Callable[[PruningPlan], bool],
    ffn_multiple: int = 32,
    steps: int = 12,
    progress: bool = True,
) -> list[Found]:
    """Find a stock plan for each budget: of the plans that fit, the one with the least calibration loss.

    For every number of layers the widest FFN that fits is taken. Of the choices of so many layers, those that lose
    least by importance are tried.

    Args:
        importance: Importance of what the model has.
        current: The plan that the model carries, a stock one.
        table: Costs; the budgets are in its unit.
        budgets: Largest costs, in any order.
        loss_of: Calibration loss of a plan; smaller is better.
        loads_anywhere: Whether a plan needs no custom code in the model's family.
        ffn_multiple: FFN widths are multiples of this.
        steps: Plans to try for each budget, at most.
        progress: Show a progress bar.

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
    found = []
    with progress_bar(total=len(budgets) * steps, desc="search", unit="plan", disable=not progress, leave=False) as bar:
        for budget in budgets:
            plans = _candidates(importance, current, table, budget, loads_anywhere, ffn_multiple, steps)
            if not plans:
                least = _plan(importance, current, (0,), min(ffn_multiple, len(current.layers[0].ffn)))
                raise out_of_reach(table, current, budget, least, loss_of(least))
            for plan in plans:
                if plan not in losses:
                    losses[plan] = loss_of(plan)
                bar.update()
            best = min(plans, key=losses.__getitem__)
            found.append(Found(best, table.of_plan(best), losses[best], len(plans)))
    return found


def _candidates(
    importance: Importance,
    current: PruningPlan,
    table: CostTable,
    budget: float,
    loads_anywhere: Callable[[PruningPlan], bool],
    multiple: int,
    steps: int,
) -> list[PruningPlan]:
    """The widest FFN for every number of layers, with the most promising choices of layers."""
    widths = ffn_widths(len(current.layers[0].ffn), multiple)[1:]
    shapes = []
    for count in range(1, len(current.layers) + 1):
        fitting = [int(width) for width in widths if table.total([(current.heads_of, int(width))] * count) <= budget]
        if fitting:
            shapes.append((count, max(fitting)))
    choices = []
    for count, width in shapes:
        plans = (
            _plan(importance, current, places, width) for places in _least_loss(importance, len(current.layers), count)
        )
        choices += list(islice(filter(loads_anywhere, plans), max(1, steps // len(shapes))))
    return choices[-steps:]  # where there are too many, the deeper ones


def _least_loss(importance: Importance, layers: int, count: int) -> Iterator[tuple[int, ...]]:
    """Choices of layers, those first whose missing layers have the least error."""
    error = [
        float(heads[-1] + ffn[-1]) for heads, ffn in zip(importance.head_errors, importance.ffn_errors, strict=True)
    ]
    gone = sorted(combinations(range(layers), layers - count), key=lambda places: sum(error[place] for place in places))
    for places in gone:
        yield tuple(place for place in range(layers) if place not in places)


def _plan(importance: Importance, current: PruningPlan, places: Sequence[int], width: int) -> PruningPlan:
    layers = []
    for place in places:
        layer = current.layers[place]
        kept = most_important(importance.ffn[place], width)
        layers.append(LayerPlan(layer.layer, layer.heads, tuple(layer.ffn[index] for index in kept)))
    return PruningPlan(current.layers_of, current.heads_of, current.ffn_of, tuple(layers))
