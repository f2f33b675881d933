"""Non-inferiority to the teacher: paired bootstrap, randomisation tests, and the verdict for a margin."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap, monte_carlo_test

from hfcompress.errors import DataError
from hfcompress.evaluation.power import power_of, queries_needed
from hfcompress.report.delta import Delta, Verdict

_SPREAD_OF_EQUALS = 1e-12  # Metrics lie in [0, 1]; smaller spreads are rounding errors.
_BATCH = 1_000  # resamples in memory at a time: 1,000 x queries x 8 bytes


def compare(
    teacher: Mapping[str, float],
    student: Mapping[str, float],
    margin: float,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    set_of: Callable[[str], str] | None = None,
) -> Delta:
    """Compare a metric of two rankers on the same queries.

    The interval is a bootstrap interval of the mean of (student - teacher) over queries, bias-corrected and accelerated
    (BCa; Efron, 1987), or of percentiles where BCa is undefined. If all differences are equal, both ends are that
    value. The `verdict` compares the interval with the margin, as in non-inferiority trials (Piaggio et al., "Reporting
    of noninferiority and equivalence randomized trials", JAMA, 2012). `non-inferior` depends on the lower end alone:
    with a two-sided interval of 95% this is a one-sided test at a level of 2.5%.

    The p-values are those of paired randomisation tests (Fisher, 1935; Smucker, Allan and Carterette, CIKM, 2007): the
    share of random signs for which the mean of the differences is as far from zero (`p_difference`), and for which the
    mean of the differences plus the margin is as high (`p_non_inferior`). The final verdict, `corrected`, is
    `non-inferior` only if both the interval and the p-value allow it: with few queries and rare large losses, the error
    rate of the interval alone is too high. `compare` decides for one comparison, `fixed_sequence` for several; the sets
    of a comparison are corrected by Holm's method (1979).

    Power is the probability of `non-inferior` at a true difference of zero for one comparison, in the normal
    approximation with the observed standard error s / sqrt(n) of the differences:
        power = Phi(margin / (s / sqrt(n)) - z), z = the (1 + confidence) / 2 quantile of the normal distribution,
    which is the formula of the function `queries_needed` (see there for its source), solved for the power. The
    attribute `queries_needed` is the n for a power of 80%.

    Args:
        teacher: Metric of each query, e.g. nDCG@10, `{query id: value}`.
        student: Metric of each query for the artifact, over the same queries.
        margin: Non-inferiority margin: the largest acceptable loss, in units of the metric, above 0.
        confidence: Confidence level of the two-sided interval, between 0 and 1.
        resamples: Number of bootstrap resamples, and of random signs in the tests.
        seed: Seed of the resampling. The result does not depend on the order of the queries.
        set_of: Returns the data set of a query; several sets are also compared separately.

    Raises:
        DataError: The queries differ, there are fewer than 2, or the margin is not above 0.
    """
    if not margin > 0:
        raise DataError(
            "The margin of non-inferiority must be above 0",
            value=margin,
            expected="the largest loss that is acceptable, e.g. 0.01",
            remedy="choose the margin before the run, from what a user would notice",
        )
    if teacher.keys() != student.keys():
        raise DataError(
            "Teacher and artifact were measured on different queries",
            value=sorted(teacher.keys() ^ student.keys())[:5],
            expected="the same query ids on both sides",
            remedy="evaluate both on the same split",
        )
    if len(teacher) < 2:
        raise DataError(
            "Too few queries for a comparison",
            value=f"{len(teacher)} queries",
            expected="at least 2, and some hundreds for a useful interval",
            remedy="use a split with more judged queries",
        )
    groups: dict[str, list[str]] = {}
    if set_of:
        for query in sorted(teacher):
            groups.setdefault(set_of(query), []).append(query)
    differences = {query: student[query] - teacher[query] for query in sorted(teacher)}
    delta = _compare(differences, margin, confidence, resamples, seed)
    if len(groups) > 1:
        delta.by_set = {
            name: _compare({query: differences[query] for query in queries}, margin, confidence, resamples, seed)
            for name, queries in groups.items()
            if len(queries) > 1
        }
    return fixed_sequence([delta])[0]


def fixed_sequence(deltas: Sequence[Delta]) -> list[Delta]:
    """Decide several comparisons in an order that was set before the queries were seen.

    Each is tested at the full level, as long as all before it were non-inferior; after the first that was not, none is.
    The probability that any is falsely called non-inferior is at most (1 - confidence) / 2, whatever their dependence:
    before a first false one can be tested, all true ones before it are passed rightly, and it is tested once (Maurer,
    Hothorn and Lehmacher, "Multiple comparisons in drug clinical trials and preclinical assays: a-priori ordered
    hypotheses", 1995; Wiens and Dmitrienko, "The fallback procedure for evaluating a single family of hypotheses",
    2005). The first comparison, of what is to be deployed, pays nothing for the others.

    Single data sets show where a loss comes from. Those of one comparison are a family of their own, under Holm's
    correction.

    Args:
        deltas: Results of `compare`, in the order of the tests; those of older reports, without p-values, are returned
            unchanged.
    """
    results, highest, open_ = [], 0.0, True
    for delta in deltas:
        if delta.p_non_inferior is None:
            results.append(delta)
            continue
        highest = max(highest, delta.p_non_inferior)
        decision = _decision(delta, highest if open_ else 1.0)
        open_ = open_ and decision == "non-inferior"
        parts = dict(zip(delta.by_set, holm(list(delta.by_set.values())), strict=True))
        results.append(delta.model_copy(update={"p_corrected": highest, "corrected": decision, "by_set": parts}))
    return results


def holm(family: Sequence[Delta]) -> list[Delta]:
    """Correct the p-values and verdicts of a family of comparisons in no order (Holm, 1979).

    The probability that any is falsely called non-inferior is at most (1 - confidence) / 2, whatever their dependence.

    Args:
        family: Comparisons with p-values.
    """
    values = [delta.p_non_inferior or 0.0 for delta in family]
    adjusted = dict.fromkeys(range(len(values)), 0.0)
    highest = 0.0
    for rank, index in enumerate(sorted(adjusted, key=lambda index: values[index])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = highest
    return [
        delta.model_copy(update={"p_corrected": adjusted[index], "corrected": _decision(delta, adjusted[index])})
        for index, delta in enumerate(family)
    ]


def _decision(delta: Delta, p_value: float) -> Verdict:
    allowed = p_value <= (1 - delta.confidence) / 2
    return delta.verdict if allowed or delta.verdict != "non-inferior" else "inconclusive"


def _compare(by_query: Mapping[str, float], margin: float, confidence: float, resamples: int, seed: int) -> Delta:
    differences = np.array(list(by_query.values()), dtype=np.float64)
    low, high = _interval(differences, confidence, resamples, seed)
    worst = min(by_query, key=lambda query: by_query[query])
    return Delta(
        mean=float(differences.mean()),
        ci_low=low,
        ci_high=high,
        confidence=confidence,
        margin=margin,
        verdict=interval_verdict(low, high, margin),
        power=_power(differences, margin, confidence),
        queries=len(by_query),
        queries_needed=queries_needed(margin, float(differences.std(ddof=1)), confidence=confidence),
        p_difference=_randomisation(differences, "two-sided", resamples, seed),
        p_non_inferior=_randomisation(differences + margin, "greater", resamples, seed),
        worst_query=worst,
        worst=float(by_query[worst]),
    )


def _randomisation(
    differences: np.ndarray, alternative: Literal["two-sided", "greater"], resamples: int, seed: int
) -> float:
    """P-value of the mean under random signs; never 0, since the observed signs count as one outcome."""
    rng = np.random.default_rng(seed)

    def random_signs(size: tuple[int, ...]) -> np.ndarray:
        return np.where(rng.integers(0, 2, size=size, dtype=np.int8), differences, -differences)

    return float(
        monte_carlo_test(
            differences,
            random_signs,
            np.mean,
            vectorized=True,
            n_resamples=resamples,
            batch=_BATCH,
            alternative=alternative,
        ).pvalue
    )


def _interval(differences: np.ndarray, confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    if _constant(differences):
        # Every resample has this mean: BCa is undefined, and the interval is exact.
        return float(differences.mean()), float(differences.mean())
    low = high = float("nan")
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateDataWarning)
            interval = bootstrap(
                (differences,),
                np.mean,
                n_resamples=resamples,
                batch=_BATCH,
                vectorized=True,
                confidence_level=confidence,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        low, high = float(interval.low), float(interval.high)
        if np.isfinite([low, high]).all():
            break
    return low, high


def interval_verdict(low: float, high: float, margin: float) -> Verdict:
    """The verdict by an interval of the difference to the teacher; a bound at the margin itself is inconclusive."""
    if low > -margin:
        return "non-inferior"
    if high < -margin:
        return "inferior"
    return "inconclusive"


def _power(differences: np.ndarray, margin: float, confidence: float) -> float:
    if _constant(differences):
        return 1.0
    return power_of(len(differences), float(differences.std(ddof=1)), margin, confidence)


def _constant(differences: np.ndarray) -> bool:
    return bool(np.ptp(differences) <= _SPREAD_OF_EQUALS)
