"""One search for a whole family of budgets: dynamic programmes whose coefficients a local search finds.

The errors of sublayers say little about each other: half of one FFN may matter more than all of another. So each
sublayer has a coefficient, the dynamic programme minimizes the weighted sum of the errors within the budget, and a
local search changes coefficients as long as the plan that results ranks calibration queries more like the dense model.

Frantar and Alistarh, "SPDY: Accurate Pruning with Speedup Guarantees", ICML 2022; Kurtic et al., "ZipLM",
NeurIPS 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from hfcompress.costs import CostTable
from hfcompress.errors import PlanError
from hfcompress.importance.importance import Importance
from hfcompress.plan import PruningPlan
from hfcompress.search.levels import Sizes, best_sizes, least_cost, plan_of_sizes, sublayers

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
        tried: Plans whose calibration loss was measured for it.
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
    loss_of: Callable[[PruningPlan], float],
    ffn_multiple: int = 32,
    steps: int = 16,
    seed: int = 0,
    progress: bool = True,
) -> list[Found]:
    """Find a plan for each budget; each one begins with the coefficients that were found for the budget above it.

    Args:
        importance: Importance of what the model has.
        current: The plan that the model carries.
        table: Costs; the budgets are in its unit.
        budgets: Largest costs, in any order.
        loss_of: Calibration loss of a plan; smaller is better.
        ffn_multiple: FFN widths are multiples of this.
        steps: Plans to try for each budget.
        seed: Seed of the local search.
        progress: Show a progress bar.

    Returns:
        What was found, in the order of the budgets.

    Raises:
        PlanError: A budget is out of reach.
    """
    search = _Search(importance, current, table, loss_of, ffn_multiple, np.random.default_rng(seed))
    search.check(min(budgets))
    coefficients = np.ones((len(search.model), 2))
    found: dict[float, Found] = {}
    with tqdm(total=len(set(budgets)) * steps, desc="search", unit="plan", disable=not progress, leave=False) as bar:
        for budget in sorted(set(budgets), reverse=True):
            found[budget], coefficients = search.run(budget, coefficients, steps, bar.update)
    return [found[budget] for budget in budgets]


class _Search:
    """The state of one search."""

    def __init__(
        self,
        importance: Importance,
        current: PruningPlan,
        table: CostTable,
        loss_of: Callable[[PruningPlan], float],
        ffn_multiple: int,
        random: np.random.Generator,
    ) -> None:
        self.importance = importance
        self.current = current
        self.table = table
        self.loss_of = loss_of
        self.random = random
        self.model = sublayers(importance, ffn_multiple)
        self.losses: dict[Sizes, float] = {}

    def check(self, budget: float) -> None:
        """Check that a budget can be met.

        Raises:
            PlanError: It cannot; says what can, and what that would lose.
        """
        sizes, least = least_cost(self.model, self.table)
        if budget < least:
            plan = plan_of_sizes(sizes, self.importance, self.current)
            raise out_of_reach(self.table, self.current, budget, plan, self._loss(sizes))

    def run(
        self, budget: float, coefficients: np.ndarray, steps: int, tick: Callable[[], object]
    ) -> tuple[Found, np.ndarray]:
        """Search for one budget.

        Returns:
            The best plan, and the coefficients that led to it.
        """
        tried: set[Sizes] = set()
        best: tuple[float, Sizes, np.ndarray] | None = None
        for step in range(steps):
            for _ in range(REPEATS):
                proposal = coefficients if best is None else self._changed(best[2], step / steps)
                sizes = best_sizes(self.model, self.table, budget, proposal)
                assert sizes is not None  # `check` has passed
                if sizes not in tried:
                    break
            else:
                tick()
                continue
            tried.add(sizes)
            loss = self._loss(sizes)
            if best is None or loss < best[0]:
                best = loss, sizes, proposal
            tick()
        assert best is not None
        plan = plan_of_sizes(best[1], self.importance, self.current)
        return Found(plan, self.table.total(best[1]), best[0], len(tried)), best[2]

    def _changed(self, coefficients: np.ndarray, done: float) -> np.ndarray:
        """Coefficients with some of them changed, less and less towards the end."""
        chosen = self.random.random(coefficients.shape) < CHANGED
        change = self.random.normal(scale=SPREAD * (1.25 - done), size=coefficients.shape)
        return coefficients * np.exp(np.where(chosen, change, 0.0))

    def _loss(self, sizes: Sizes) -> float:
        if sizes not in self.losses:
            self.losses[sizes] = self.loss_of(plan_of_sizes(sizes, self.importance, self.current))
        return self.losses[sizes]


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
