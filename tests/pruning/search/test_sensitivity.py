"""What single cuts lose: measured where it is asked for, and never less for more."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from hfcompress.models.plan import PruningPlan
from hfcompress.pruning.importance.importance import Importance
from hfcompress.pruning.search.levels import Levels, SensitivityProfile, Sizes
from hfcompress.pruning.search.sensitivity import SensitivityProfiler

FULL = PruningPlan.full(3, 6, 96)


class ByHand:
    """A plan_loss that sees sizes."""

    def __init__(self, loss_of: Callable[[dict[int, tuple[int, int]]], float]) -> None:
        self.loss_of = loss_of
        self.uniform_loss = 1.0
        self.cached: list[PruningPlan] = []

    def __call__(self, plan: PruningPlan) -> float:
        return self.loss_of({layer.layer: (len(layer.heads), len(layer.ffn)) for layer in plan.layers})

    def cache_layers(self, plan: PruningPlan) -> None:
        self.cached.append(plan)


def profiler_for(loss_of: Callable[[dict[int, tuple[int, int]]], float]) -> SensitivityProfiler:
    importance = Importance.additive("by hand", [torch.rand(6)] * 3, [torch.rand(96)] * 3)
    return SensitivityProfiler(importance, FULL, ByHand(lambda sizes: -math.expm1(-loss_of(sizes) / 1000)), 16)


def measure(profiler: SensitivityProfiler, sizes: Sizes) -> SensitivityProfile:
    """The profile in the units of the loss by hand."""
    found = profiler.measure(sizes, lambda: None)

    def scaled(losses: np.ndarray) -> np.ndarray:
        return np.round(1000 * losses, 6)

    layers = [
        parts and (Levels(parts[0].sizes, scaled(parts[0].losses)), Levels(parts[1].sizes, scaled(parts[1].losses)))
        for parts in found.layers
    ]
    return SensitivityProfile(layers, scaled(found.layer_losses), scaled(found.tail_losses))


def quadratic(sizes: dict[int, tuple[int, int]]) -> float:
    loss = 10.0 * (3 - len(sizes))
    for layer, (heads, neurons) in sizes.items():
        loss += (layer + 1) * (6 - heads) ** 2 + ((96 - neurons) / 16) ** 2
    return loss


def test_losses_are_those_of_single_cuts() -> None:
    profiler = profiler_for(quadratic)
    profile = measure(profiler, profiler.full_sizes)
    assert profile.layer_losses.tolist() == [10.0, 10.0, 10.0]
    assert profile.tail_losses.tolist() == [np.inf, 20.0, 10.0, 0.0]
    for layer, parts in enumerate(profile.layers):
        assert parts is not None
        heads, ffn = parts
        assert heads.sizes.tolist() == list(range(7)) and heads.losses[-1] == ffn.losses[-1] == 0
        for size in (0, 1, 2, 4):  # measured: shares of 6 round to these
            assert heads.losses[size] == (layer + 1) * (6 - size) ** 2
        assert ffn.sizes.tolist() == [0, 16, 32, 48, 64, 80, 96]
        assert ffn.losses[0] == 36 and ffn.losses[3] == 9
        assert all(np.diff(heads.losses) <= 0) and all(np.diff(ffn.losses) <= 0)


def test_around_smaller_sizes_what_grows_gains() -> None:
    profiler = profiler_for(quadratic)
    here: Sizes = ((3, 48), None, (2, 96))
    profile = measure(profiler, here)
    assert profile.layers[1] is None
    first, last = profile.layers[0], profile.layers[2]
    assert first is not None and last is not None
    assert first[0].losses[3] == 0 and first[0].losses[6] == -9
    assert first[1].losses[3] == 0 and first[1].losses[6] == -9
    assert last[0].losses[2] == 0 and last[0].losses[6] == -48
    assert profile.tail_losses.tolist() == [np.inf, -38.0, -38.0, 0.0]  # what goes with layer 2 was lost already


def test_a_smaller_size_never_loses_less() -> None:
    def bumpy(sizes: dict[int, tuple[int, int]]) -> float:
        return float(sum({6: 0, 4: 5, 3: 1, 2: 7, 1: 2, 0: 3}.get(heads, 4) for heads, _ in sizes.values()))

    profiler = profiler_for(bumpy)
    parts = measure(profiler, profiler.full_sizes).layers[0]
    assert parts is not None
    assert all(np.diff(parts[0].losses) <= 0)
    assert parts[0].losses[0] == parts[0].losses[2] == 7


def test_the_last_head_of_a_model_stays() -> None:
    profiler = profiler_for(lambda sizes: float(6 * len(sizes) - sum(heads for heads, _ in sizes.values())))
    profile = measure(profiler, ((0, 96), (2, 96), None))
    parts = profile.layers[1]
    assert parts is not None
    assert np.isinf(parts[0].losses[0]) and np.isfinite(parts[0].losses[1:]).all()
    assert np.isinf(profile.layer_losses[1]) and np.isinf(profile.tail_losses[:2]).all()


def test_to_rank_at_random_is_worse_than_the_loss_says() -> None:
    """The loss of a ruined model is bounded; what it has lost is not."""

    def saturated(sizes: dict[int, tuple[int, int]]) -> float:
        return min(0.2 * (18 - sum(heads for heads, _ in sizes.values())), 0.999)

    importance = Importance.additive("by hand", [torch.rand(6)] * 3, [torch.rand(96)] * 3)
    plan_loss = ByHand(saturated)
    plan_loss.uniform_loss = 1.0
    profile = SensitivityProfiler(importance, FULL, plan_loss, 16).measure(((6, 96), (6, 96), (4, 96)), lambda: None)
    parts = profile.layers[0]
    assert parts is not None
    first, second = parts[0].losses[4] - parts[0].losses[6], parts[0].losses[2] - parts[0].losses[4]
    assert second > 2 * first > 0  # two heads more, after two
    assert parts[0].losses[0] == pytest.approx(math.log(0.6 / 0.01))
