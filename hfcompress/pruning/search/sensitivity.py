"""Sensitivity profile: the calibration loss of plans that differ from a given one in one sublayer or layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from hfcompress.models.plan import PruningPlan
from hfcompress.pruning.importance.importance import Importance
from hfcompress.pruning.search.levels import Levels, SensitivityProfile, Sizes, ffn_widths, plan_of_sizes

# Shares of a sublayer at which its loss is measured, with linear interpolation between them: the loss rises steeply
# only where little remains.
HEAD_SHARES = (0, 1 / 6, 1 / 3, 2 / 3)
FFN_SHARES = (0, 1 / 48, 1 / 6, 1 / 2)

MIN_QUALITY = 1e-2  # share of the ranking quality below which losses do not grow further


class PlanLoss(Protocol):
    """Calibration loss of a plan.

    Attributes:
        uniform_loss: Loss of uniform scores.
    """

    uniform_loss: float

    def __call__(self, plan: PruningPlan) -> float:
        """Loss of a plan; smaller is better."""
        ...

    def cache_layers(self, plan: PruningPlan) -> None:
        """Prepare for plans that share their lower layers with this one."""
        ...


class SensitivityProfiler:
    """Measures sensitivity profiles.

    Args:
        importance: Decides which heads and FFN neurons a size keeps.
        current: The plan that the model carries.
        plan_loss: Calibration loss of a plan.
        ffn_multiple: FFN widths are multiples of this.
    """

    def __init__(self, importance: Importance, current: PruningPlan, plan_loss: PlanLoss, ffn_multiple: int) -> None:
        self.importance, self.current, self.plan_loss = importance, current, plan_loss
        self.heads = [np.arange(len(layer.heads) + 1) for layer in current.layers]
        self.widths = [ffn_widths(len(layer.ffn), ffn_multiple) for layer in current.layers]
        self.losses: dict[Sizes, float] = {}

    @property
    def full_sizes(self) -> Sizes:
        """Sizes of the model before the search."""
        return tuple((len(layer.heads), len(layer.ffn)) for layer in self.current.layers)

    def loss(self, sizes: Sizes) -> float:
        """Calibration loss of sizes; each is evaluated once."""
        if sizes not in self.losses:
            self.losses[sizes] = self.plan_loss(plan_of_sizes(sizes, self.importance, self.current))
        return self.losses[sizes]

    def measure(self, sizes: Sizes, tick: Callable[[], object]) -> SensitivityProfile:
        """Measure the loss of every single change of `sizes`.

        The calibration loss saturates where a model ranks nearly at random, so destroying it further would seem to cost
        nothing. `-log(1 - loss / uniform_loss)` adds up instead: each cut takes a share of the remaining ranking
        quality.

        Args:
            sizes: Sizes to change.
            tick: Called after each layer.
        """
        self.plan_loss.cache_layers(plan_of_sizes(sizes, self.importance, self.current))
        base = self._log_loss(sizes)
        layers: list[tuple[Levels, Levels] | None] = [None] * len(sizes)
        layer_losses, tail_losses = np.zeros(len(sizes)), np.zeros(len(sizes) + 1)
        for index in reversed(range(len(sizes))):
            if sizes[index] is None:
                tail_losses[index] = tail_losses[index + 1]
                continue
            layers[index] = self._layer_levels(sizes, index, base)
            below, above = sizes[:index], sizes[index + 1 :]
            layer_losses[index] = self._log_loss((*below, None, *above)) - base
            tail_losses[index] = self._log_loss((*below, *[None] * (1 + len(above)))) - base
            tick()
        return SensitivityProfile(layers, layer_losses, tail_losses)

    def _layer_levels(self, sizes: Sizes, index: int, base: float) -> tuple[Levels, Levels]:
        """Levels of the attention and FFN of one layer, with losses relative to `base`."""
        below, size, above = sizes[:index], sizes[index], sizes[index + 1 :]
        assert size is not None
        heads, neurons = size

        def loss(heads: int, neurons: int) -> float:
            return self._log_loss((*below, (heads, neurons), *above)) - base

        fewest = 0 if _has_head((*below, *above)) else 1
        return (
            _levels(self.heads[index], HEAD_SHARES, lambda count: loss(count, neurons), heads, fewest),
            _levels(self.widths[index], FFN_SHARES, lambda count: loss(heads, count), neurons, 0),
        )

    def _log_loss(self, sizes: Sizes) -> float:
        """The loss on a scale on which cuts add up; infinite without any head."""
        if not _has_head(sizes):
            return math.inf
        return -math.log(max(1 - self.loss(sizes) / self.plan_loss.uniform_loss, MIN_QUALITY))


def _has_head(sizes: Sizes) -> bool:
    return any(size and size[0] for size in sizes)


def _levels(
    sizes: np.ndarray, shares: Sequence[float], loss_of: Callable[[int], float], current: int, fewest: int
) -> Levels:
    """Losses of all sizes, interpolated between a few measured ones and never lower for a smaller size.

    Args:
        sizes: All sizes, ascending.
        shares: Shares of the full size to measure at.
        loss_of: Measures the loss of a size.
        current: The size whose loss is 0.
        fewest: Sizes below this one have an infinite loss.
    """
    full = int(sizes[-1])
    wanted = {int(sizes[np.abs(sizes - share * full).argmin()]) for share in shares}
    wanted |= {current, full, min(full, fewest)}
    points = sorted(size for size in wanted if size >= fewest)
    measured = np.array([0.0 if size == current else loss_of(size) for size in points])
    monotone = np.maximum.accumulate(measured[::-1])[::-1]
    losses = np.interp(sizes, points, monotone)
    losses[sizes < fewest] = np.inf
    return Levels(sizes, losses)
