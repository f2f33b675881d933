"""Non-inferiority: hand-made cases, boundaries of the verdict, invariances, power and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfcompress.errors import DataError
from hfcompress.evaluation import significance
from hfcompress.evaluation.significance import compare

RESAMPLES = 500


def queries(values: list[float]) -> dict[str, float]:
    return {f"q{number:04d}": value for number, value in enumerate(values)}


@pytest.mark.parametrize("difference", [0.0, 0.25, -0.5])
def test_equal_differences_give_the_exact_interval(difference: float) -> None:
    delta = compare(queries([0.5, 0.5, 0.5]), queries([0.5 + difference] * 3), margin=0.01)
    assert (delta.mean, delta.ci_low, delta.ci_high, delta.power) == (difference, difference, difference, 1.0)
    assert delta.verdict == ("non-inferior" if difference >= 0 else "inferior")


def test_differences_equal_up_to_rounding_count_as_equal() -> None:
    teacher = [0.1, 0.2, 0.3, 0.7]
    delta = compare(queries(teacher), queries([value + 0.1 for value in teacher]), margin=0.01)
    assert delta.ci_low == delta.ci_high == delta.mean == pytest.approx(0.1)


def test_a_loss_of_exactly_the_margin_is_inconclusive() -> None:
    delta = compare(queries([0.5, 0.5]), queries([0.25, 0.25]), margin=0.25)
    assert delta.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.009, 0.02, "non-inferior"),
        (-0.009, -0.001, "non-inferior"),  # a real but small loss is within the margin
        (-0.01, 0.02, "inconclusive"),
        (-0.05, 0.02, "inconclusive"),
        (-0.05, -0.01, "inconclusive"),
        (-0.05, -0.011, "inferior"),
    ],
)
def test_boundaries_of_the_verdict(monkeypatch: pytest.MonkeyPatch, low: float, high: float, verdict: str) -> None:
    monkeypatch.setattr(significance, "_interval", lambda *_: (low, high))
    assert compare(queries([0.1, 0.2]), queries([0.1, 0.3]), margin=0.01).verdict == verdict


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "non-inferior"), (-0.05, "inferior"), (-0.01, "inconclusive")])
def test_verdicts_on_noisy_differences(shift: float, verdict: str) -> None:
    rng = np.random.default_rng(0)
    teacher = rng.random(400)
    noise = rng.normal(0, 0.05, 400)
    student = teacher + noise - noise.mean() + shift
    delta = compare(queries(list(teacher)), queries(list(student)), margin=0.01)
    assert delta.verdict == verdict
    assert delta.ci_low < delta.mean < delta.ci_high
    # With 400 queries the bootstrap is close to the interval of the normal approximation.
    half = 1.96 * noise.std(ddof=1) / math.sqrt(400)
    assert delta.ci_high - delta.ci_low == pytest.approx(2 * half, rel=0.1)


def test_power_by_hand() -> None:
    # Standard deviation 0.1 and 100 queries: a standard error of 0.01. Phi(0.0196 / 0.01 - 1.96) = Phi(0) = 0.5.
    differences = [0.1, -0.1] * 50
    scale = 1 / np.std([1, -1] * 50, ddof=1)
    student = queries([value * scale for value in differences])
    power = [
        compare(queries([0.0] * 100), student, margin, resamples=RESAMPLES).power for margin in (1e-6, 0.0196, 0.1)
    ]
    assert power == pytest.approx([0.025, 0.5, 1.0], abs=1e-3)


@settings(deadline=None, max_examples=25)
@given(
    values=st.lists(st.tuples(st.integers(0, 64), st.integers(0, 64)), min_size=2, max_size=40),
    shift=st.integers(-8, 8),
)
def test_a_shift_of_both_changes_nothing_and_of_one_moves_the_interval(
    values: list[tuple[int, int]], shift: int
) -> None:
    # Multiples of 1/64 are exact in floating point, so the differences really are the same.
    teacher = queries([first / 64 for first, _ in values])
    student = queries([second / 64 for _, second in values])
    moved_teacher = {query: value + shift / 64 for query, value in teacher.items()}
    moved_student = {query: value + shift / 64 for query, value in student.items()}
    delta = compare(teacher, student, margin=0.05, resamples=RESAMPLES)
    assert compare(moved_teacher, moved_student, margin=0.05, resamples=RESAMPLES) == delta
    assert delta.ci_low <= delta.ci_high
    moved = compare(teacher, moved_student, margin=0.05, resamples=RESAMPLES)
    assert moved.mean == pytest.approx(delta.mean + shift / 64)
    assert moved.power == pytest.approx(delta.power)


def test_the_order_of_the_queries_does_not_count() -> None:
    rng = np.random.default_rng(1)
    teacher, student = queries(list(rng.random(30))), queries(list(rng.random(30)))
    turned = dict(reversed(student.items()))
    assert compare(teacher, student, 0.01) == compare(teacher, turned, 0.01) == compare(teacher, student, 0.01, seed=0)
    assert compare(teacher, student, 0.01, seed=1).ci_low != compare(teacher, student, 0.01).ci_low


def test_where_bca_is_undefined_percentiles_step_in(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = []
    real = significance.bootstrap

    def undefined_bca(*args, **settings):
        methods.append(settings["method"])
        result = real(*args, **settings)
        if settings["method"] == "BCa":
            result.confidence_interval = result.confidence_interval._replace(low=math.nan)
        return result

    monkeypatch.setattr(significance, "bootstrap", undefined_bca)
    delta = compare(queries([0.0, 0.0, 0.0]), queries([0.1, 0.2, 0.4]), margin=0.01)
    assert methods == ["BCa", "percentile"]
    assert 0.09 < delta.ci_low < delta.ci_high < 0.41


@pytest.mark.parametrize(
    ("teacher", "student", "margin"),
    [
        ({"a": 1.0, "b": 1.0}, {"a": 1.0, "c": 1.0}, 0.01),
        ({"a": 1.0}, {"a": 1.0}, 0.01),
        ({}, {}, 0.01),
        ({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0}, 0.0),
        ({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0}, -0.01),
        ({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0}, math.nan),
    ],
)
def test_bad_input_is_refused(teacher: dict, student: dict, margin: float) -> None:
    with pytest.raises(DataError, match="Remedy"):
        compare(teacher, student, margin)
