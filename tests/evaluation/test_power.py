"""What test queries can show, before they are seen."""

from __future__ import annotations

import numpy as np
import pytest

from hfcompress.evaluation.power import (
    deviation_of,
    expected_verdict,
    is_expected_to_pass,
    pass_probability,
    planned_verdict,
    power_of,
)
from hfcompress.evaluation.significance import compare
from hfcompress.report.report import Delta

RESAMPLES = 200
DEVIATION = 0.05


def dev(mean: float = 0.0, queries: int = 200) -> Delta:
    """A comparison on dev whose differences have exactly this mean, and a standard deviation of 0.05."""
    values = np.random.default_rng(0).normal(size=queries)
    values = mean + DEVIATION * (values - values.mean()) / values.std(ddof=1)
    teacher = {f"q{number}": 0.5 for number in range(queries)}
    student = {f"q{number}": 0.5 + value for number, value in enumerate(values.tolist())}
    return compare(teacher, student, 0.01, resamples=RESAMPLES)


def test_the_power_of_a_deviation_is_that_of_a_comparison() -> None:
    delta = dev()
    assert power_of(200, DEVIATION, 0.01) == pytest.approx(delta.power)
    assert power_of(50, 0.0, 0.01) == 1.0
    assert delta.queries_needed is not None
    assert power_of(delta.queries_needed, DEVIATION, 0.01) == pytest.approx(0.8, abs=0.01)
    assert deviation_of(delta) == pytest.approx(DEVIATION, rel=0.01)


def test_the_probability_to_pass_by_hand() -> None:
    # (-0.002 + 0.01 - 1.959964 * 0.05 / sqrt(800)) / (0.05 * sqrt(1 / 200 + 1 / 800)) = 1.147; Phi of it is 0.874
    assert pass_probability(dev(-0.002), 800) == pytest.approx(0.874, abs=0.002)
    assert is_expected_to_pass(dev(-0.002), 800) and not is_expected_to_pass(dev(-0.004), 800)


def test_the_probability_to_pass_is_the_share_of_simulated_tests_that_pass() -> None:
    """The true mean is around that on dev, and the mean on test around the true one."""
    rng, runs, test = np.random.default_rng(1), 20_000, 800
    true = rng.normal(-0.003, DEVIATION / np.sqrt(200), runs)
    found = rng.normal(true, DEVIATION / np.sqrt(test))
    share = (found - 1.96 * DEVIATION / np.sqrt(test) > -0.01).mean()
    assert pass_probability(dev(-0.003), test) == pytest.approx(share, abs=0.01)


def test_a_gain_on_dev_is_luck_and_more_queries_of_either_split_help() -> None:
    assert pass_probability(dev(0.01), 800) == pytest.approx(pass_probability(dev(0.0), 800), abs=1e-6)
    assert pass_probability(dev(-0.001), 400) < pass_probability(dev(-0.001), 800)
    assert pass_probability(dev(-0.001, 100), 800) < pass_probability(dev(-0.001, 400), 800)


def test_what_test_queries_can_show_is_said_with_a_remedy() -> None:
    known = dev()
    assert known.queries_needed == 197
    few, enough = expected_verdict(known, 50, "int8 alone"), expected_verdict(known, 197, "int8 alone")
    assert "with 50 test queries and a margin of 0.01" in few and "differences of int8 alone on dev" in few
    # 2.8016 * 0.05 / sqrt(50) = 0.0198
    assert "80% takes some 197 queries (of this set, or of several sets together) or a margin of 0.02" in few
    assert "about 80%" in enough and "takes" not in enough


def test_what_test_queries_need_before_anything_is_measured() -> None:
    # 0.01 * sqrt(400) / 2.8016 = 0.0714; (2.8016 * 0.15 / 0.01)^2 = 1766; 2.8016 * 0.15 / sqrt(400) = 0.0210
    sentence = planned_verdict(400, 0.01)
    assert "standard deviation of at most 0.071" in sentence and "0.15 takes some 1,766 queries" in sentence
    assert sentence.endswith("or a margin of 0.022")
    assert "takes" not in planned_verdict(2000, 0.01)
