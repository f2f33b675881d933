"""Is an artefact non-inferior to its teacher? A paired bootstrap over queries, and a verdict set by a margin."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap, norm

from hfcompress.errors import DataError
from hfcompress.evaluation.report import Delta, Verdict

_SPREAD_OF_EQUALS = 1e-12  # Metrics lie in [0, 1]; differences closer than this differ by rounding alone.
_BATCH = 1_000  # Resamples held in memory at a time: 1,000 x queries x 8 bytes.


def compare(
    teacher: Mapping[str, float],
    student: Mapping[str, float],
    margin: float,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Delta:
    """Compare a metric of two rankers query by query.

    The interval is a bootstrap over queries of the mean of (student - teacher), bias-corrected and accelerated (BCa;
    Efron, 1987), or by percentiles where BCa is undefined. If all differences are equal, it is that one value. The
    verdict compares the interval with the margin, as is usual in non-inferiority trials (Piaggio et al., "Reporting of
    noninferiority and equivalence randomized trials", JAMA, 2012). Only the lower end decides on `non-inferior`: with a
    two-sided interval of 95% this is a one-sided test at 97.5% confidence, that is at a level of 2.5%.

    Power is the probability of `non-inferior` at a true difference of zero, in the normal approximation with the
    observed standard error s / sqrt(n) of the differences:
        power = Phi(margin / (s / sqrt(n)) - z), z = the (1 + confidence) / 2 quantile of the normal distribution,
    which is n = (z + z_power)^2 s^2 / margin^2, the sample size of a non-inferiority test of one (here: paired) mean,
    solved for the power (Chow, Shao, Wang and Lokhnygina, "Sample Size Calculations in Clinical Research", chapter 3).

    Args:
        teacher: Metric of each query, e.g. nDCG@10, `{query id: value}`.
        student: The same for the artefact, over the same queries.
        margin: Largest loss that counts as ranking as well, in units of the metric, above 0.
        confidence: Confidence level of the two-sided interval, between 0 and 1.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling; the result depends on nothing else, not even on the order of the queries.

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
    differences = np.array([student[query] - teacher[query] for query in sorted(teacher)], dtype=np.float64)
    low, high = _interval(differences, confidence, resamples, seed)
    return Delta(
        mean=float(differences.mean()),
        ci_low=low,
        ci_high=high,
        confidence=confidence,
        margin=margin,
        verdict=_verdict(low, high, margin),
        power=_power(differences, margin, confidence),
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
