"""What test queries can show, before they are seen: power, the queries that it takes, and the verdict to expect."""

from __future__ import annotations

from math import ceil, sqrt

from scipy.stats import norm

from hfcompress.report.delta import Delta

POWER = 0.8  # conventional power of a trial
# Smallest and largest standard deviation of the per-query differences of pruned models in model_cards/.
USUAL_DEVIATIONS = (0.10, 0.15)


def queries_needed(margin: float, deviation: float, power: float = POWER, confidence: float = 0.95) -> int:
    """Number of queries for a non-inferiority test of a given power.

    n = (z + z_power)^2 s^2 / margin^2, the sample size of a non-inferiority test of a paired mean at a true difference
    of zero (Chow, Shao, Wang and Lokhnygina, "Sample Size Calculations in Clinical Research", chapter 3), with z the
    (1 + confidence) / 2 and z_power the `power` quantile of the normal distribution; at least 2. This is the inverse of
    the power that `compare` reports.

    Args:
        margin: Non-inferiority margin: the largest acceptable loss.
        deviation: Standard deviation s of the per-query differences; an assumption before an evaluation.
        power: Probability of `non-inferior` at a true difference of zero.
        confidence: Confidence level of the two-sided interval.
    """
    return max(2, ceil((_quantiles(power, confidence) * deviation / margin) ** 2))


def power_of(queries: int, deviation: float, margin: float, confidence: float = 0.95) -> float:
    """Probability of `non-inferior` at a true difference of zero, see `compare`; 1 without any spread.

    Args:
        queries: Number of queries.
        deviation: Standard deviation s of the per-query differences; an assumption before an evaluation.
        margin: Non-inferiority margin: the largest acceptable loss.
        confidence: Confidence level of the two-sided interval.
    """
    if not deviation:
        return 1.0
    return float(norm.cdf(margin * sqrt(queries) / deviation - _quantile(confidence)))


def pass_probability(dev: Delta, queries: int) -> float:
    """Probability that a model will be `non-inferior` on the test queries, by its differences on dev.

    This is the predictive power of a trial (Spiegelhalter, Freedman and Blackburn, "Monitoring clinical trials:
    conditional or predictive power?", Controlled Clinical Trials, 1986). With the mean d and the standard deviation s
    of n differences on dev, the mean of m differences on test is expected around d with a variance of
    s^2 / n + s^2 / m; it passes if it is above z s / sqrt(m) - margin:
        probability = Phi((min(d, 0) + margin - z s / sqrt(m)) / (s sqrt(1 / n + 1 / m))),
    with z the (1 + confidence) / 2 quantile of the normal distribution. A mean above zero counts as zero: models and
    checkpoints are chosen on dev, so a gain there is mostly luck that test queries do not repeat.

    Args:
        dev: Comparison of the model with its teacher on dev.
        queries: Number of test queries.
    """
    deviation = deviation_of(dev)
    assert dev.queries is not None
    room = min(dev.mean, 0.0) + dev.margin - _quantile(dev.confidence) * deviation / sqrt(queries)
    return float(norm.cdf(room / (deviation * sqrt(1 / dev.queries + 1 / queries))))


def is_expected_to_pass(dev: Delta, queries: int) -> bool:
    """Whether `pass_probability` is at least 80%; arguments are the same."""
    return pass_probability(dev, queries) >= POWER


def deviation_of(delta: Delta) -> float:
    """Standard deviation of the per-query differences of a comparison, from its `queries_needed`; never 0."""
    assert delta.queries_needed is not None
    return delta.margin * sqrt(delta.queries_needed) / _quantiles(POWER, delta.confidence)


def planned_verdict(queries: int, margin: float, confidence: float = 0.95) -> str:
    """What a split of test queries can show, before any model was measured, as a sentence.

    Args:
        queries: Number of test queries.
        margin: Non-inferiority margin: the largest acceptable loss.
        confidence: Confidence level of the two-sided interval.
    """
    largest = margin * sqrt(queries) / _quantiles(POWER, confidence)
    low, high = USUAL_DEVIATIONS
    sentence = (
        f"{queries:,} test queries show with a power of {POWER:.0%} that a model which loses nothing is non-inferior "
        f"at a margin of {margin:g} if its differences per query have a standard deviation of at most {largest:.3f}; "
        f"those of pruned models had {low:.2f} to {high:.2f} so far"
    )
    if largest >= high:
        return sentence
    return f"{sentence}, and {high:.2f} takes {_remedy(queries, high, margin, confidence)}"


def expected_verdict(dev: Delta, queries: int, model: str) -> str:
    """What a split of test queries can show, by the spread of differences on dev, as a sentence.

    Args:
        dev: Comparison of a compressed model with its teacher on dev. A model that differs more from its teacher needs
            more queries.
        queries: Number of test queries.
        model: Description of that model.
    """
    deviation = deviation_of(dev)
    power = power_of(queries, deviation, dev.margin, dev.confidence)
    sentence = (
        f"with {queries:,} test queries and a margin of {dev.margin:g}, a model that loses nothing is shown to be "
        f"non-inferior with a probability of about {power:.0%}, by the spread of differences of {model} on dev"
    )
    if power >= POWER:
        return sentence
    return f"{sentence}; {POWER:.0%} takes {_remedy(queries, deviation, dev.margin, dev.confidence)}"


def _remedy(queries: int, deviation: float, margin: float, confidence: float) -> str:
    """What would raise the power to 80%."""
    enough = ceil(1000 * _quantiles(POWER, confidence) * deviation / sqrt(queries)) / 1000
    needed = queries_needed(margin, deviation, confidence=confidence)
    return f"some {needed:,} queries (of this set, or of several sets together) or a margin of {enough:g}"


def _quantile(confidence: float) -> float:
    return float(norm.ppf((1 + confidence) / 2))


def _quantiles(power: float, confidence: float) -> float:
    return _quantile(confidence) + float(norm.ppf(power))
