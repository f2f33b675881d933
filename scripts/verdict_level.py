"""Simulate the type I error of the verdict: how often is an artifact that loses exactly the margin non-inferior?

The differences of nDCG@10 per query are those of the reports in model_cards/: three in four are zero, some are large.
They are weighted (exponential tilting) so that their mean is minus the margin, and sampled repeatedly:

    python scripts/verdict_level.py --samples 2000

prints for several numbers of queries the share of samples that are non-inferior by the interval alone, by the test
alone, and by both (the final verdict). At a confidence of 95% the test has a level of 2.5%. The rate of the final
verdict is below 5% from 50 queries on and about 5% with 30, where large losses are too rare to be in every sample; that
of the interval alone is above 5% there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.optimize import brentq

from hfcompress.evaluation.significance import compare
from hfcompress.report.report import RunReport

CARDS = Path(__file__).parents[1] / "model_cards"
MARGIN = 0.01


def differences(card: str) -> np.ndarray:
    """Differences of the last artifact of a stored report, `(queries,)`."""
    report = RunReport.load(CARDS / card)
    after = report.artifacts[-1].per_query
    return np.array([after[query] - value for query, value in report.teacher.per_query.items()])


def tilted(values: np.ndarray, mean: float) -> np.ndarray:
    """Weights proportional to exp(t x value) that give the values this mean."""

    def weights(strength: float) -> np.ndarray:
        raw = np.exp(strength * values)
        return raw / raw.sum()

    return weights(brentq(lambda strength: float(weights(strength) @ values) - mean, -100, 100))


def false_rates(
    values: np.ndarray, queries: int, samples: int, resamples: int = 500, seed: int = 0
) -> tuple[float, float, float]:
    """Shares of samples with a true loss of the margin that are non-inferior by the interval, the test, and both."""
    rng = np.random.default_rng(seed)
    weights = tilted(values, -MARGIN)
    found = np.zeros(3)
    for sample in range(samples):
        drawn = rng.choice(values, size=queries, p=weights)
        names = [f"q{number:04d}" for number in range(queries)]
        after = dict(zip(names, drawn.tolist(), strict=True))
        delta = compare(dict.fromkeys(names, 0.0), after, MARGIN, resamples=resamples, seed=sample)
        assert delta.p_non_inferior is not None
        found += [
            delta.verdict == "non-inferior",
            delta.p_non_inferior <= (1 - delta.confidence) / 2,
            delta.decision == "non-inferior",
        ]
    interval, test, both = found / samples
    return float(interval), float(test), float(both)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    arguments = parser.parse_args()
    print(f"{'differences of':16} {'queries':>8} {'interval':>9} {'test':>7} {'verdict':>8}")
    for card in sorted(path.parent.name for path in CARDS.glob("*/report.json")):
        for queries in (30, 50, 100, 300):
            rates = false_rates(differences(card), queries, arguments.samples)
            print(f"{card:16} {queries:8} {rates[0]:9.1%} {rates[1]:7.1%} {rates[2]:8.1%}", flush=True)


if __name__ == "__main__":
    main()
