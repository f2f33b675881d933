"""Measure what every single cut loses: the calibration loss of plans that differ from one in a single place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from hfcompress.importance.importance import Importance
from hfcompress.plan import PruningPlan
from hfcompress.search.levels import Landscape, Levels, Sizes, ffn_widths, plan_of_sizes

# Shares of a sublayer at which its loss is measured; between them it is linear. It rises steeply only where little is
# left.
HEAD_SHARES = (0, 1 / 6, 1 / 3, 2 / 3)
FFN_SHARES = (0, 1 / 48, 1 / 6, 1 / 2)


LEAST_LEFT = 1e-2


class Judge(Protocol):
    """Calibration loss of a plan.

    Attributes:
        chance: Loss of a model that scores all documents alike.
    """

    chance: float

    def __call__(self, plan: PruningPlan) -> float:
        """Loss of a plan; smaller is better."""
        ...

    def keep(self, plan: PruningPlan) -> None:
        """Get ready for plans that share their lower layers with this one."""
        ...


class Surveyor:
    """Measures the landscape around sizes.

    Args:
        importance: What goes first.
        current: The plan that the model carries.
        judge: Calibration loss of a plan.
        ffn_multiple: FFN widths are multiples of this.
    """

    def __init__(self, importance: Importance, current: PruningPlan, judge: Judge, ffn_multiple: int) -> None:
        self.importance, self.current, self.judge = importance, current, judge
        self.heads = [np.arange(len(layer.heads) + 1) for layer in current.layers]
        self.widths = [ffn_widths(len(layer.ffn), ffn_multiple) for layer in current.layers]
        self.losses: dict[Sizes, float] = {}

    @property
    def everything(self) -> Sizes:
        """Sizes of the model as it is."""
        return tuple((len(layer.heads), len(layer.ffn)) for layer in self.current.layers)

    def loss(self, sizes: Sizes) -> float:
        """Calibration loss of sizes; each is judged once."""
        if sizes not in self.losses:
            self.losses[sizes] = self.judge(plan_of_sizes(sizes, self.importance, self.current))
        return self.losses[sizes]

    def measure(self, sizes: Sizes, tick: Callable[[], object]) -> Landscape:
        """What is lost by every change of `sizes` in one place.

        The calibration loss hardly grows any more where a model ranks nearly at random, so that it would seem to cost
        nothing to destroy it. What adds up is `-log(1 - loss / chance)`: of what the ranking has left, each cut takes a
        share.

        Args:
            sizes: Where to measure.
            tick: Called after each layer.
        """
        self.judge.keep(plan_of_sizes(sizes, self.importance, self.current))
        base = self._lost(sizes)
        layers: list[tuple[Levels, Levels] | None] = []
        gone, above = np.zeros(len(sizes)), np.zeros(len(sizes) + 1)
        for place, size in reversed(list(enumerate(sizes))):
            if size is None:
                layers.append(None)
                above[place] = above[place + 1]
                continue
            heads, neurons = size

            def with_heads(count: int, place: int = place, neurons: int = neurons) -> float:
                return self._lost((*sizes[:place], (count, neurons), *sizes[place + 1 :])) - base

            def with_neurons(count: int, place: int = place, heads: int = heads) -> float:
                return self._lost((*sizes[:place], (heads, count), *sizes[place + 1 :])) - base

            # A model without any head is none.
            least = 0 if any(other and other[0] for number, other in enumerate(sizes) if number != place) else 1
            layers.append(
                (
                    _levels(self.heads[place], HEAD_SHARES, with_heads, heads, least),
                    _levels(self.widths[place], FFN_SHARES, with_neurons, neurons, 0),
                )
            )
            without = (*sizes[:place], None, *sizes[place + 1 :])
            gone[place] = self._lost_if_any(without, base)
            above[place] = self._lost_if_any((*sizes[:place], *[None] * (len(sizes) - place)), base)
            tick()
        return Landscape(layers[::-1], gone, above)

    def _lost(self, sizes: Sizes) -> float:
        return -math.log(max(1 - self.loss(sizes) / self.judge.chance, LEAST_LEFT))

    def _lost_if_any(self, sizes: Sizes, base: float) -> float:
        """What sizes lose; infinite without a head."""
        return self._lost(sizes) - base if any(size and size[0] for size in sizes) else np.inf


def _levels(
    sizes: np.ndarray, shares: Sequence[float], loss_of: Callable[[int], float], now: int, least: int
) -> Levels:
    """Losses of all sizes from those at a few; never less for a smaller size."""
    full = int(sizes[-1])
    wanted = {int(sizes[np.abs(sizes - share * full).argmin()]) for share in shares} | {now, full, min(full, least)}
    points = sorted(size for size in wanted if size >= least)
    measured = np.array([0.0 if size == now else loss_of(size) for size in points])
    rising = np.maximum.accumulate(measured[::-1])[::-1]
    losses = np.interp(sizes, points, rising)
    losses[sizes < least] = np.inf
    return Levels(sizes, losses)
