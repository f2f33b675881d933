"""Search for plans of any shape: dynamic programmes over measured losses, refined by a local search.

The loss of a cut is measured as the calibration loss of the model with this cut alone; layer-wise errors are hardly
comparable between layers and say little about the scores. A dynamic programme then finds the cuts with the least sum of
losses within the budget. Losses of single cuts add up only near the plan at which they were measured. The search
therefore works in rounds: each round halves the cost and measures the sensitivity profile again. From the last round
above a budget, a local search perturbs coefficients of the losses and keeps those whose plan has a lower calibration
loss. The rounds do not depend on the budgets, so a plan does not depend on what else is searched for.

Most of the time is for the profiles. The coefficients change a loss by more than an estimate on a part of the queries
does, so profiles may be measured with an estimate; the local search always compares calibration losses.

Dynamic programme and coefficients: Frantar and Alistarh, "SPDY: Accurate Pruning with Speedup Guarantees", ICML 2022;
Kurtic et al., "ZipLM", NeurIPS 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hfcompress.errors import PlanError
from hfcompress.models.plan import PruningPlan
from hfcompress.pruning.costs.table import CostTable
from hfcompress.pruning.importance.importance import Importance
from hfcompress.pruning.search.levels import (
    SensitivityProfile,
    Sizes,
    best_sizes,
    least_cost,
    plan_of_sizes,
    total_cost,
)
from hfcompress.pruning.search.sensitivity import PlanLoss, SensitivityProfiler
from hfcompress.utils.progress import progress_bar

ROUND_RATIO = 2.0  # by which each round lowers the cost
SPREAD = 1.0  # standard deviation of the change of a coefficient's logarithm
CHANGED = 0.3  # share of the coefficients that one step changes
REPEATS = 8  # draws of a step until it leads to a plan that was not evaluated before


@dataclass(frozen=True)
class SearchResult:
    """Result of the search for one budget.

    Attributes:
        plan: What is kept.
        cost: Cost of the plan, in the table's unit.
        loss: Calibration loss of the plan.
        trials: Plans that the local search evaluated.
    """

    plan: PruningPlan
    cost: float
    loss: float
    trials: int


def search_free(
    importance: Importance,
    current: PruningPlan,
    table: CostTable,
    budgets: Sequence[float],
    plan_loss: PlanLoss,
    *,
    estimate: PlanLoss | None = None,
    ffn_multiple: int = 32,
    steps: int = 12,
    seed: int = 0,
    progress: bool = True,
) -> list[SearchResult]:
    """Find a plan for each budget, independent of the other budgets.

    Args:
        importance: Importance of the model's heads and FFN neurons.
        current: The plan that the model carries.
        table: Costs; the budgets are in its unit.
        budgets: Largest costs, in any order.
        plan_loss: Calibration loss of a plan, by which plans are compared.
        estimate: The loss in the sensitivity profiles, such as `CalibrationLoss.of_queries`; by default `plan_loss`.
        ffn_multiple: FFN widths are multiples of this.
        steps: Plans that the local search evaluates for each budget.
        seed: Seed of the local search.
        progress: Show a progress bar.

    Returns:
        The results, in the order of the budgets.

    Raises:
        PlanError: A budget is out of reach.
    """
    search = _Search(SensitivityProfiler(importance, current, estimate or plan_loss, ffn_multiple), table, plan_loss)
    search.check(min(budgets))
    full = table.of_plan(current)
    rounds = {budget: _rounds_above(full, budget) for budget in budgets}
    last = max(rounds.values())
    sizes = search.profiler.full_sizes
    results: dict[float, SearchResult] = {}
    total = (1 + last) * len(sizes) + steps * len(rounds)
    with progress_bar(total=total, desc="search", unit="step", disable=not progress, leave=False) as bar:
        profile = search.profiler.measure(sizes, bar.update)
        for number in range(last + 1):
            for budget in (budget for budget in rounds if rounds[budget] == number):
                random = np.random.default_rng([seed, round(1000 * full / budget)])
                results[budget] = search.refine(profile, budget, steps, random, bar.update)
            if number < last:
                sizes = search.best(profile, full / ROUND_RATIO ** (number + 1), np.ones((len(sizes), 2)))
                profile = search.profiler.measure(sizes, bar.update)
    return [results[budget] for budget in budgets]


def out_of_reach(table: CostTable, current: PruningPlan, budget: float, least: PruningPlan, loss: float) -> PlanError:
    """The error for a budget below the cost of the cheapest plan, with that plan's cost, sizes and loss."""
    full, cost = table.of_plan(current), table.of_plan(least)
    return PlanError(
        "The target is beyond reach",
        value=f"{budget:.3g} {table.unit}, {full / budget:.2f} times less than now",
        expected=f"at least {cost:.3g} ({full / cost:.2f} times less), which keeps layers "
        f"{[layer.layer for layer in least.layers]} with {sum(len(layer.heads) for layer in least.layers)} heads and "
        f"{sum(len(layer.ffn) for layer in least.layers)} FFN neurons, at a calibration loss of {loss:.3g}",
        remedy="ask for less, prune the vocabulary too, or start from a smaller model",
    )


def _rounds_above(full: float, budget: float) -> int:
    """Number of rounds, after the one at the full cost, whose cost is above the budget."""
    return max(0, math.ceil(math.log(full / budget) / math.log(ROUND_RATIO) - 1e-9) - 1)


@dataclass(frozen=True)
class _Search:
    """Sensitivity profiler, cost table and calibration loss of one search, with the losses evaluated so far."""

    profiler: SensitivityProfiler
    table: CostTable
    plan_loss: PlanLoss
    losses: dict[Sizes, float] = field(default_factory=dict)

    def loss(self, sizes: Sizes) -> float:
        """Calibration loss of sizes; each is evaluated once."""
        losses = self.profiler.losses if self.profiler.plan_loss is self.plan_loss else self.losses
        if sizes not in losses:
            losses[sizes] = self.plan_loss(self.plan(sizes))
        return losses[sizes]

    def plan(self, sizes: Sizes) -> PruningPlan:
        """The plan of sizes."""
        return plan_of_sizes(sizes, self.profiler.importance, self.profiler.current)

    def check(self, budget: float) -> None:
        """Check that a budget can be met.

        Raises:
            PlanError: It cannot. The message has the cheapest plan and its loss.
        """
        profiler = self.profiler
        sizes, least = least_cost([len(layer.heads) for layer in profiler.current.layers], self.table)
        if budget < least:
            raise out_of_reach(self.table, profiler.current, budget, self.plan(sizes), self.loss(sizes))

    def best(self, profile: SensitivityProfile, budget: float, coefficients: np.ndarray) -> Sizes:
        """Best sizes within a budget that passed `check`."""
        sizes = best_sizes(profile, self.table, budget, coefficients)
        assert sizes is not None
        return sizes

    def refine(
        self,
        profile: SensitivityProfile,
        budget: float,
        steps: int,
        random: np.random.Generator,
        tick: Callable[[], object],
    ) -> SearchResult:
        """Local search over the coefficients for the plan with the least calibration loss."""
        evaluated: set[Sizes] = set()
        best: tuple[float, Sizes, np.ndarray] | None = None
        for step in range(steps):
            for _ in range(REPEATS):
                proposal = np.ones((len(profile.layers), 2))
                if best is not None:
                    proposal = _perturbed(best[2], step / steps, random)
                sizes = self.best(profile, budget, proposal)
                if sizes not in evaluated:
                    break
            else:
                tick()
                continue
            evaluated.add(sizes)
            loss = self.loss(sizes)
            if best is None or loss < best[0]:
                best = loss, sizes, proposal
            tick()
        assert best is not None
        return SearchResult(self.plan(best[1]), total_cost(best[1], self.table), best[0], len(evaluated))


def _perturbed(coefficients: np.ndarray, done: float, random: np.random.Generator) -> np.ndarray:
    """Coefficients with some of them changed; the changes get smaller as `done` goes from 0 to 1."""
    chosen = random.random(coefficients.shape) < CHANGED
    change = random.normal(scale=SPREAD * (1.25 - done), size=coefficients.shape)
    return coefficients * np.exp(np.where(chosen, change, 0.0))
