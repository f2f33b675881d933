"""Non-inferiority: hand-made cases, boundaries of the verdict, invariances, power, correction and refusals."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test, ttest_1samp

from hfcompress.errors import DataError
from hfcompress.evaluation import significance
from hfcompress.evaluation.significance import (
    compare,
    fixed_sequence,
    holm,
    interval_verdict,
)
from hfcompress.report.report import Delta

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
def test_boundaries_of_the_verdict(low: float, high: float, verdict: str) -> None:
    assert interval_verdict(low, high, margin=0.01) == verdict


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


def noisy(count: int, shift: float = 0.0, seed: int = 0) -> tuple[dict[str, float], dict[str, float]]:
    rng = np.random.default_rng(seed)
    teacher = rng.random(count)
    return queries(list(teacher)), queries(list(teacher + rng.normal(shift, 0.05, count)))


def test_p_values_are_those_of_scipys_permutation_test() -> None:
    teacher, student = noisy(12, -0.01)
    delta = compare(teacher, student, margin=0.05)
    found = np.array([student[query] - teacher[query] for query in teacher])
    settings = {"permutation_type": "samples", "n_resamples": math.inf}  # all 4,096 signs
    exact = permutation_test((found,), np.mean, **settings).pvalue
    assert delta.p_difference == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 10_000) + 1e-4)
    exact = permutation_test((found + 0.05,), np.mean, alternative="greater", **settings).pvalue
    assert delta.p_non_inferior == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 10_000) + 1e-4)


def test_p_values_of_large_samples_are_those_of_the_t_test() -> None:
    teacher, student = noisy(400, -0.004)
    delta = compare(teacher, student, margin=0.01)
    found = np.array([student[query] - teacher[query] for query in teacher])
    assert delta.p_difference == pytest.approx(ttest_1samp(found, 0).pvalue, abs=0.02)
    expected = ttest_1samp(found, -0.01, alternative="greater").pvalue
    assert delta.p_non_inferior == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("deviation", [0.05, 0.2])
def test_so_many_queries_give_a_power_of_80_percent(deviation: float) -> None:
    differences = np.array([deviation, -deviation] * 50)
    needed = compare(queries([0.0] * 100), queries(list(differences)), 0.01, resamples=RESAMPLES).queries_needed
    assert needed is not None
    # (1.959964 + 0.841621)^2 s^2 / margin^2, with s^2 = 100 / 99 deviation^2.
    assert needed == math.ceil((1.959964 + 0.841621) ** 2 * deviation**2 * 100 / 99 / 0.01**2)
    scaled = queries(list(np.resize([deviation, -deviation], needed)))
    power = compare(queries([0.0] * needed), scaled, 0.01, resamples=RESAMPLES).power
    assert power == pytest.approx(0.8, abs=0.005)


def test_equal_rankings_need_no_more_than_two_queries_but_two_prove_nothing() -> None:
    delta = compare(queries([0.5, 0.5]), queries([0.5, 0.5]), margin=0.01)
    assert (delta.queries, delta.queries_needed, delta.p_difference) == (2, 2, 1)
    assert (delta.verdict, delta.corrected, delta.decision) == ("non-inferior", "inconclusive", "inconclusive")
    assert delta.p_non_inferior == pytest.approx(0.25, abs=0.02)  # one of the four pairs of signs


def test_the_worst_query() -> None:
    delta = compare(queries([0.5, 0.5, 0.5]), queries([0.5, 0.2, 0.9]), margin=0.01)
    assert delta.worst_query == "q0001" and delta.worst == pytest.approx(-0.3)


def deltas_with(*p_values: float, verdict: str = "non-inferior") -> list[Delta]:
    delta = compare(queries([0.5] * 9), queries([0.5] * 9), margin=0.01, resamples=RESAMPLES)
    return [delta.model_copy(update={"p_non_inferior": value, "verdict": verdict}) for value in p_values]


def test_holms_correction_by_hand() -> None:
    # Sorted: 0.005 x 4, 0.008 x 3 = 0.024, 0.015 x 2 = 0.03, 0.4 x 1; each at least what came before.
    found = holm(deltas_with(0.015, 0.005, 0.4, 0.008))
    assert [delta.p_corrected for delta in found] == pytest.approx([0.03, 0.02, 0.4, 0.024])
    assert [delta.corrected for delta in found] == ["inconclusive", "non-inferior", "inconclusive", "non-inferior"]
    assert [delta.p_corrected for delta in holm(deltas_with(0.02, 0.03))] == [0.04, 0.04]
    assert [delta.p_corrected for delta in holm(deltas_with(0.9, 0.8))] == [1, 1]


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_a_correction_never_lowers_a_p_value_and_keeps_their_order(values: list[float]) -> None:
    found = [delta.p_corrected for delta in holm(deltas_with(*values))]
    assert all(after >= before for before, after in zip(values, found, strict=True))
    assert all(after <= min(1, len(values) * before) + 1e-12 for before, after in zip(values, found, strict=True))
    order = sorted(range(len(values)), key=lambda place: values[place])
    assert [found[place] for place in order] == sorted(found)


def test_a_correction_touches_non_inferiority_alone() -> None:
    assert [delta.corrected for delta in holm(deltas_with(1.0, 0.5, verdict="inferior"))] == ["inferior"] * 2
    assert [delta.corrected for delta in holm(deltas_with(0.001, verdict="inconclusive"))] == ["inconclusive"]
    old = deltas_with(0.5)[0].model_copy(update={"p_non_inferior": None, "p_corrected": None, "corrected": None})
    found = fixed_sequence([old, *deltas_with(0.02)])
    assert found[0] == old and found[0].decision == "non-inferior" and found[1].p_corrected == 0.02


def test_a_sequence_tests_each_at_the_full_level_until_one_fails() -> None:
    found = fixed_sequence(deltas_with(0.024, 0.001, 0.025, 0.03, 0.001))
    assert [delta.p_corrected for delta in found] == [0.024, 0.024, 0.025, 0.03, 0.03]
    assert [delta.corrected for delta in found] == 3 * ["non-inferior"] + 2 * ["inconclusive"]
    # Under Holm's correction, the first would have paid for the others.
    assert holm(deltas_with(0.024, 0.001, 0.025, 0.03, 0.001))[0].corrected == "inconclusive"


def test_a_sequence_ends_where_the_interval_is_not_conclusive() -> None:
    first, second, third = deltas_with(0.001, 0.001, 0.001)
    unclear = second.model_copy(update={"verdict": "inconclusive"})
    worse = third.model_copy(update={"verdict": "inferior"})
    found = fixed_sequence([first, unclear, third, worse])
    assert [delta.corrected for delta in found] == ["non-inferior", "inconclusive", "inconclusive", "inferior"]


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_the_first_of_a_sequence_pays_nothing_and_no_later_one_passes_without_it(values: list[float]) -> None:
    found = fixed_sequence(deltas_with(*values))
    assert found[0].p_corrected == values[0]
    passed = [delta.corrected == "non-inferior" for delta in found]
    assert passed == sorted(passed, reverse=True) and passed[0] == (values[0] <= 0.025)


def test_every_data_set_by_itself() -> None:
    teacher = {f"{name}/{number}": 0.5 for name in ("a", "b", "c") for number in range(20)} | {"d/0": 0.5}
    student = {query: value - 0.1 * query.startswith("b/") for query, value in teacher.items()}
    delta = compare(teacher, student, 0.01, set_of=lambda query: query[0])
    assert {name: part.mean for name, part in delta.by_set.items()} == pytest.approx({"a": 0, "b": -0.1, "c": 0})
    assert [part.corrected for part in delta.by_set.values()] == ["non-inferior", "inferior", "non-inferior"]
    assert delta.queries == 61 and {part.queries for part in delta.by_set.values()} == {20}  # d has one query alone
    # The sets of an artifact are a family: the least p-value counts three times, for any number of artifacts.
    found = fixed_sequence([delta, delta])
    least = delta.by_set["a"].p_non_inferior
    assert least is not None and found[1].by_set["a"].p_corrected == pytest.approx(3 * least)
    assert compare(teacher, student, 0.01, set_of=lambda _: "one").by_set == {}


def verdict_level() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "verdict_level.py"
    spec = importlib.util.spec_from_file_location("verdict_level", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script  # for its dataclass
    spec.loader.exec_module(script)
    return script


@pytest.mark.soak
def test_a_loss_of_the_margin_is_seldom_called_non_inferior() -> None:
    script = verdict_level()
    samples, shapes = 100, script.shapes()
    assert len(shapes) == 6
    for first in (-script.MARGIN, 0.0):
        rates = []
        for values in shapes.values():
            means = [first, *[-script.MARGIN] * (values.shape[1] - 1)]
            rates.append(script.simulate(values, means, 500, samples, resamples=200).sequence)
        # 2.5% is what is aimed at; of all samples together, give or take three standard errors.
        assert np.mean(rates) <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / (len(rates) * samples)), (first, rates)


def test_tilted_queries_have_the_means_of_a_scenario() -> None:
    script = verdict_level()
    for values in script.shapes().values():
        others = values.shape[1] - 1
        for means in ([-0.01, *[-0.01] * others], [0.0, *[-0.01] * others], [0.0, *[0.0] * others]):
            assert script.tilted(values, np.array(means)) @ values == pytest.approx(means, abs=1e-5)
