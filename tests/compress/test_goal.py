"""Goals that fit, and goals that do not."""

from __future__ import annotations

import pytest

from hfcompress.compress.goal import Goal, parse_duration
from hfcompress.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "seconds"), [("60m", 3600), ("1h30m", 5400), ("90s", 90), ("0.5h", 1800), ("1h2m3s", 3723)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "60", "m", "1d", "60 m", "-5m", "5m x"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(RecipeError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_speedup": 4, "target_latency_ms": 30}, "Two targets"),
        ({"target_speedup": 1.0}, "target-speedup"),
        ({"target_latency_ms": 0.0}, "target-latency-ms"),
        ({"max_loss": 0.0}, "max-loss"),
        ({"keep": 1.0}, "--keep does not fit"),
        ({"keep": 99.0}, "--keep does not fit"),
        ({"keep": 0.99, "max_loss": 0.02}, "two ways"),
        ({"max_loss": float("nan")}, "max-loss"),
        ({"runtime": "tensorrt"}, "no such runtime"),
        ({"vocabulary": "small"}, "no such choice of a vocabulary"),
        ({"max_size_mb": 0.0}, "max-size-mb"),
        ({"seconds": 5}, "too short"),
    ],
)
def test_a_goal_that_does_not_fit(settings: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Goal(**settings)


def test_the_vocabulary_is_cut_where_size_is_asked_for() -> None:
    assert Goal().fits(10**12) and not Goal().cuts_vocabulary(10**12)
    assert Goal(vocabulary="corpus").cuts_vocabulary(1)
    bounded = Goal(max_size_mb=15.5)
    assert bounded.fits(15_500_000) and not bounded.cuts_vocabulary(15_500_000)
    assert not bounded.fits(15_500_001) and bounded.cuts_vocabulary(15_500_001)


def test_a_share_to_keep_is_a_margin() -> None:
    goal = Goal(keep=0.99, target_speedup=4)
    assert goal.with_margin(0.8161) == Goal(target_speedup=4, max_loss=0.0082)
    assert goal.with_margin(0.001).max_loss == 1e-4  # a margin of 0 has no verdict
    assert Goal(max_loss=0.02).with_margin(0.8) == Goal(max_loss=0.02)
