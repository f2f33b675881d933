"""The fit of scale and shift: exact lines, outliers, shifts of queries, and data that give no map."""

from __future__ import annotations

import numpy as np
import pytest

from hfcompress.evaluation.score_map import fit_score_map


def lists(values: np.ndarray, size: int = 10) -> list[np.ndarray]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def test_a_line_is_found_exactly() -> None:
    student = np.random.default_rng(0).normal(-5, 3, 200)
    found = fit_score_map(lists(student), lists(1.7 * student - 0.4), "dev")
    assert found is not None and (found.queries, found.pairs, found.split) == (20, 200, "dev")
    assert (found.scale, found.shift) == (pytest.approx(1.7), pytest.approx(-0.4))
    assert found.after < 1e-6 < found.before and not found.folded


def test_pairs_far_off_do_not_turn_the_line() -> None:
    rng = np.random.default_rng(1)
    student = rng.normal(-5, 3, 2000)
    teacher = 0.5 * student + 2 + rng.normal(0, 0.3, 2000)
    teacher[:100] += 40 * np.sign(student[:100] + 5)  # least squares would find a scale of 1.1
    found = fit_score_map(lists(student), lists(teacher), "dev")
    assert np.polyfit(student, teacher, 1)[0] > 0.9
    assert (
        found is not None and found.scale == pytest.approx(0.5, abs=0.05) and found.shift == pytest.approx(2, abs=0.2)
    )


def test_shifts_of_queries_are_averaged() -> None:
    rng = np.random.default_rng(2)
    student = rng.normal(0, 2, (400, 10))
    teacher = student + 1.5 + rng.normal(0, 1, (400, 1))
    found = fit_score_map(list(student), list(teacher), "dev")
    assert (
        found is not None and found.shift == pytest.approx(1.5, abs=0.15) and found.scale == pytest.approx(1, abs=0.05)
    )


@pytest.mark.parametrize("units", [1e-3, 1e4])
def test_units_do_not_matter(units: float) -> None:
    rng = np.random.default_rng(3)
    student = rng.normal(2, 1, 500)
    teacher = 3 * student + rng.normal(0, 0.5, 500)
    plain, other = (fit_score_map(lists(student * each), lists(teacher), "dev") for each in (1.0, units))
    assert plain is not None and other is not None
    assert other.scale * units == pytest.approx(plain.scale, rel=1e-3)


def test_scores_on_the_teachers_scale_stay_as_they_are() -> None:
    rng = np.random.default_rng(4)
    teacher = rng.normal(-4, 4, 5000)
    found = fit_score_map(lists(teacher + rng.normal(0, 0.5, 5000)), lists(teacher), "dev")
    assert found is not None and (found.scale, found.shift) == (1, 0) and found.before == found.after > 0


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (np.arange(40.0), -np.arange(40.0)),
        (np.ones(40), np.arange(40.0)),
        (np.arange(20.0), 2 * np.arange(20.0)),
    ],
    ids=["opposite", "constant", "few"],
)
def test_what_gives_no_map(student: np.ndarray, teacher: np.ndarray) -> None:
    assert fit_score_map(lists(student), lists(teacher), "dev") is None


def test_no_pairs_give_no_map() -> None:
    assert fit_score_map([], [], "dev") is None
