"""Is an artefact non-inferior to its teacher? Paired bootstrap, randomisation tests, and a verdict set by a margin."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Literal

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap, monte_carlo_test, norm

from hfcompress.errors import DataError
from hfcompress.evaluation.report import Delta, Verdict

_SPREAD_OF_EQUALS = 1e-12  # Metrics lie in [0, 1]; differences closer than this differ by rounding alone.
_POWER = 0.8  # For which `queries_needed` is given.
_BATCH = 1_000  # Resamples held in memory at a time: 1,000 x queries x 8 bytes.


def compare(
    teacher: Mapping[str, float],
    student: Mapping[str, float],
    margin: float,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    set_of: Callable[[str], str] | None = None,
) -> Delta:
    """Compare a metric of two rankers query by query.

    The interval is a bootstrap over queries of the mean of (student - teacher), bias-corrected and accelerated (BCa;
    Efron, 1987), or by percentiles where BCa is undefined. If all differences are equal, it is that one value. The
    `verdict` compares the interval with the margin, as is usual in non-inferiority trials (Piaggio et al., "Reporting
    of noninferiority and equivalence randomized trials", JAMA, 2012). Only the lower end decides on `non-inferior`:
    with a two-sided interval of 95% this is a one-sided test at 97.5% confidence, that is at a level of 2.5%.

    The p-values are of paired randomisation tests (Fisher, 1935; Smucker, Allan and Carterette, CIKM, 2007): how often
    random signs give the differences a mean as far from zero (`p_difference`), and the differences plus the margin one
    as high (`p_non_inferior`). The verdict that decides, `corrected`, is `non-inferior` only if the interval and the
    p-value, after Holm's correction, both say so: with few queries and rare large losses the interval alone errs too
    often. `compare` corrects for one comparison; `holm` does for several.

    Power is the probability of `non-inferior` at a true difference of zero, in the normal approximation with the
    observed standard error s / sqrt(n) of the differences, for one comparison:
        power = Phi(margin / (s / sqrt(n)) - z), z = the (1 + confidence) / 2 quantile of the normal distribution,
    which is n = (z + z_power)^2 s^2 / margin^2, the sample size of a non-inferiority test of one (here: paired) mean,
    solved for the power (Chow, Shao, Wang and Lokhnygina, "Sample Size Calculations in Clinical Research", chapter 3).
    `queries_needed` is that n for a power of 80%, at least 2.

    Args:
        teacher: Metric of each query, e.g. nDCG@10, `{query id: value}`.
        student: The same for the artefact, over the same queries.
        margin: Largest loss that counts as ranking as well, in units of the metric, above 0.
        confidence: Confidence level of the two-sided interval, between 0 and 1.
        resamples: Bootstrap resamples, and random signs of the tests.
        seed: Seed of the resampling; the result depends on nothing else, not even on the order of the queries.
        set_of: Name of the data set of a query; with several sets each is compared by itself, too.

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
            "Teacher and artefact were measured on different queries",
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
    return holm([delta])[0]


def holm(deltas: Sequence[Delta]) -> list[Delta]:
    """Correct the p-values of non-inferiority of several comparisons (Holm, 1979), and the verdicts that they decide.

    The comparisons over all queries are one family. Those of single data sets, of every comparison and every set, are
    another: they tell where a loss comes from. A chance of at most (1 - confidence) / 2 that any comparison of a family
    is called non-inferior by mistake needs no assumption about how they depend on each other.

    Args:
        deltas: What `compare` returned; those of older reports, without p-values, stay as they are.
    """
    overall = _corrected([delta for delta in deltas if delta.p_non_inferior is not None])
    single = _corrected([part for delta in deltas for part in delta.by_set.values()])
    ours, parts = iter(overall), iter(single)
    results = []
    for delta in deltas:
        changed = next(ours) if delta.p_non_inferior is not None else delta
        results.append(changed.model_copy(update={"by_set": {name: next(parts) for name in delta.by_set}}))
    return results


def queries_needed(margin: float, deviation: float, power: float = 0.8, confidence: float = 0.95) -> int:
    """How many queries a verdict of non-inferiority needs.

    n = (z + z_power)^2 s^2 / margin^2, the sample size of a non-inferiority test of a paired mean at a true difference
    of zero (Chow, Shao, Wang and Lokhnygina, "Sample Size Calculations in Clinical Research", chapter 3), with z the
    (1 + confidence) / 2 and z_power the `power` quantile of the normal distribution: the inverse of the power that
    `compare` reports; at least 2.

    Args:
        margin: Largest loss that counts as ranking as well.
        deviation: Standard deviation s of the per-query differences, an assumption before anything is measured.
        power: Probability of `non-inferior` where both models rank equally well.
        confidence: Confidence level of the two-sided interval.
    """
    z = norm.ppf((1 + confidence) / 2) + norm.ppf(power)
    return max(2, ceil((z * deviation / margin) ** 2))


def _corrected(family: Sequence[Delta]) -> list[Delta]:
    values = [delta.p_non_inferior or 0.0 for delta in family]
    adjusted = dict.fromkeys(range(len(values)), 0.0)
    highest = 0.0
    for rank, place in enumerate(sorted(adjusted, key=lambda place: values[place])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return [
        delta.model_copy(update={"p_corrected": adjusted[place], "corrected": _decision(delta, adjusted[place])})
        for place, delta in enumerate(family)
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
        verdict=_verdict(low, high, margin),
        power=_power(differences, margin, confidence),
        queries=len(by_query),
        queries_needed=queries_needed(margin, float(differences.std(ddof=1)), _POWER, confidence),
        p_difference=_randomisation(differences, "two-sided", resamples, seed),
        p_non_inferior=_randomisation(differences + margin, "greater", resamples, seed),
        worst_query=worst,
        worst=float(by_query[worst]),
    )


def _randomisation(
    differences: np.ndarray, alternative: Literal["two-sided", "greater"], resamples: int, seed: int
) -> float:
    """P-value of the mean under random signs; never 0, as the differences themselves count as one of the outcomes."""
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
        # Every resample has this mean, which leaves BCa undefined and the answer exact.
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


def _verdict(low: float, high: float, margin: float) -> Verdict:
    if low > -margin:
        return "non-inferior"
    if high < -margin:
        return "inferior"
    return "inconclusive"


def _power(differences: np.ndarray, margin: float, confidence: float) -> float:
    if _constant(differences):
        return 1.0
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return float(norm.cdf(margin / error - norm.ppf((1 + confidence) / 2)))


def _constant(differences: np.ndarray) -> bool:
    return bool(np.ptp(differences) <= _SPREAD_OF_EQUALS)
