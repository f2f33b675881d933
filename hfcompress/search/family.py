"""One search for a whole family of budgets: dynamic programmes over measured losses, and a local search around them.

What a cut loses is measured, by the calibration loss of the model with just this cut; layer-wise errors say little
about each other, and less about the end of the model. A dynamic programme then finds the cuts whose losses add up to
least within the budget. Losses of single cuts add up only near the plan at which they were measured, so the search goes
down in steps, and measures again at each stop. From the last stop above a budget asked for, a local search changes
coefficients of the losses as long as the plan that results ranks calibration queries more like the dense model. The
stops are the same whatever is asked for: a plan does not depend on what else is in the family.

Dynamic programme and coefficients: Frantar and Alistarh, "SPDY: Accurate Pruning with Speedup Guarantees", ICML 2022;
Kurtic et al., "ZipLM", NeurIPS 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hfcompress.costs import CostTable
from hfcompress.errors import PlanError
from hfcompress.importance.importance import Importance
from hfcompress.plan import PruningPlan
from hfcompress.progress import progress_bar
from hfcompress.search.landscape import Judge, Surveyor
from hfcompress.search.levels import Landscape, Sizes, best_sizes, least_cost, plan_of_sizes, total_cost

STEP = 2.0  # so many times cheaper is each stop
SPREAD = 1.0  # of the change of a coefficient's logarithm in one step
CHANGED = 0.3  # share of the coefficients that a step changes
REPEATS = 8  # draws of a step until it leads to a plan that was not tried yet


@dataclass(frozen=True)
class Found:
    """What the search found for one budget.

    Attributes:
        plan: What is kept.
        cost: Cost of the plan, in the table's unit.
        loss: Calibration loss of the plan.
        tried: Plans that the local search tried.
    """

    plan: PruningPlan
    cost: float
    loss: float
    tried: int


def search_family(
    importance: Importance,
    current: PruningPlan,
    table: CostTable,
    budgets: Sequence[float],
    judge: Judge,
    ffn_multiple: int = 32,
    steps: int = 12,
    seed: int = 0,
    progress: bool = True,
) -> list[Found]:
    """Find a plan for each budget, which does not depend on the other budgets.

    Args:
        importance: Importance of what the model has.
        current: The plan that the model carries.
        table: Costs; the budgets are in its unit.
        budgets: Largest costs, in any order.
        judge: Calibration loss of a plan.
        ffn_multiple: FFN widths are multiples of this.
        steps: Plans that the local search tries for each budget.
        seed: Seed of the local search.
        progress: Show a progress bar.

    Returns:
        What was found, in the order of the budgets.

    Raises:
        PlanError: A budget is out of reach.
    """
    search = _Search(importance, current, table, judge, ffn_multiple)
    search.check(min(budgets))
    full = table.of_plan(current)
    stops = {budget: _stops_above(full, budget) for budget in budgets}
    last = max(stops.values())
    sizes = search.surveyor.everything
    found: dict[float, Found] = {}
    work = (1 + last) * len(sizes) + steps * len(stops)
    with progress_bar(total=work, desc="search", unit="step", disable=not progress, leave=False) as bar:
        landscape = search.surveyor.measure(sizes, bar.update)
        for stop in range(last + 1):
            for budget in (budget for budget in stops if stops[budget] == stop):
                random = np.random.default_rng([seed, round(1000 * full / budget)])
                found[budget] = search.refine(landscape, budget, steps, random, bar.update)
            if stop < last:
                sizes = search.best(landscape, full / STEP ** (stop + 1), np.ones((len(sizes), 2)))
                landscape = search.surveyor.measure(sizes, bar.update)
    return [found[budget] for budget in budgets]


def _stops_above(full: float, budget: float) -> int:
    """How many stops are made on the way down to a budget; the first is below the full cost."""
    return max(0, math.ceil(math.log(full / budget) / math.log(STEP) - 1e-9) - 1)


class _Search:
    """The state of one search."""

    def __init__(
        self,
        importance: Importance,
        current: PruningPlan,
        table: CostTable,
        judge: Judge,
        ffn_multiple: int,
    ) -> None:
        self.surveyor = Surveyor(importance, current, judge, ffn_multiple)
        self.table = table

    def check(self, budget: float) -> None:
        """Check that a budget can be met.

        Raises:
            PlanError: It cannot; says what can, and what that would lose.
        """
        survey = self.surveyor
        sizes, least = least_cost([len(layer.heads) for layer in survey.current.layers], self.table)
        if budget < least:
            plan = plan_of_sizes(sizes, survey.importance, survey.current)
            raise out_of_reach(self.table, survey.current, budget, plan, survey.loss(sizes))

    def best(self, landscape: Landscape, budget: float, coefficients: np.ndarray) -> Sizes:
        """Best sizes within a budget that `check` has found in reach."""
        sizes = best_sizes(landscape, self.table, budget, coefficients)
        assert sizes is not None
        return sizes

    def refine(
        self,
        landscape: Landscape,
        budget: float,
        steps: int,
        random: np.random.Generator,
        tick: Callable[[], object],
    ) -> Found:
        """Search for coefficients that lead to a better plan."""
        tried: set[Sizes] = set()
        best: tuple[float, Sizes, np.ndarray] | None = None
        for step in range(steps):
            for _ in range(REPEATS):
                proposal = np.ones((len(landscape.layers), 2))
                if best is not None:
                    proposal = _changed(best[2], step / steps, random)
                sizes = self.best(landscape, budget, proposal)
                if sizes not in tried:
                    break
            else:
                tick()
                continue
            tried.add(sizes)
            loss = self.surveyor.loss(sizes)
            if best is None or loss < best[0]:
                best = loss, sizes, proposal
            tick()
        assert best is not None
        plan = plan_of_sizes(best[1], self.surveyor.importance, self.surveyor.current)
        return Found(plan, total_cost(best[1], self.table), best[0], len(tried))


def _changed(coefficients: np.ndarray, done: float, random: np.random.Generator) -> np.ndarray:
    """Coefficients with some of them changed, less and less towards the end."""
    chosen = random.random(coefficients.shape) < CHANGED
    change = random.normal(scale=SPREAD * (1.25 - done), size=coefficients.shape)
    return coefficients * np.exp(np.where(chosen, change, 0.0))


def out_of_reach(table: CostTable, current: PruningPlan, budget: float, least: PruningPlan, loss: float) -> PlanError:
    """The error for a budget below the cheapest plan, which says what that is and what it would lose."""
    full, cost = table.of_plan(current), table.of_plan(least)
    return PlanError(
        "The target is beyond reach",
        value=f"{budget:.3g} {table.unit}, {full / budget:.2f} times less than now",
        expected=f"at least {cost:.3g} ({full / cost:.2f} times less), which leaves layers "
        f"{[layer.layer for layer in least.layers]} with {sum(len(layer.heads) for layer in least.layers)} heads and "
        f"{sum(len(layer.ffn) for layer in least.layers)} FFN neurons, at a calibration loss of {loss:.3g}",
        remedy="ask for less, prune the vocabulary too, or start from a smaller model",
    )
