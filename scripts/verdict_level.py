"""Simulate the verdict: how often is an artifact that loses the margin called non-inferior, and how often a good one?

Six shapes of differences of nDCG@10 per query, each of several artifacts of one student, which are correlated: those of
the reports in model_cards/ (three in four are zero, some are large), and three made up: nearly normal ones, many small
ones, and rare losses of a whole query. Queries are weighted (exponential tilting) so that the artifacts have the mean
differences of a scenario, and sampled repeatedly:

    python scripts/verdict_level.py --samples 2000 --queries 500

prints the family-wise error rate of the fixed sequence: the share of samples in which an artifact that loses exactly
the margin is called non-inferior, once where all do, and once where the first artifact of the sequence loses nothing,
so that the next one is nearly always tested. The level is 2.5% at a confidence of 95%. The power is the share of
samples in which the first artifact, the one to deploy, is called non-inferior where none loses anything: by the fixed
sequence, and under Holm's correction.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from hfcompress.evaluation.significance import compare, fixed_sequence, holm
from hfcompress.report.delta import Delta
from hfcompress.report.report import RunReport

CARDS = Path(__file__).parents[1] / "model_cards"
MARGIN = 0.01
ARTIFACTS = 3


@dataclass(frozen=True)
class Rates:
    """Shares of samples, by `simulate`.

    Attributes:
        sequence: Some artifact that loses the margin is non-inferior by the fixed sequence.
        first: The first artifact is non-inferior by the fixed sequence.
        first_holm: The first artifact is non-inferior under Holm's correction; None if not asked for.
    """

    sequence: float
    first: float
    first_holm: float | None = None


def differences(card: str) -> np.ndarray:
    """Differences of the last artifacts of a stored report, the last one first, at most `ARTIFACTS` columns."""
    report = RunReport.load(CARDS / card)
    queries = list(report.teacher.per_query)
    columns = [
        [artifact.per_query[query] - report.teacher.per_query[query] for query in queries]
        for artifact in report.artifacts[::-1][:ARTIFACTS]
    ]
    return np.array(columns).T


def shapes() -> dict[str, np.ndarray]:
    """Differences by name, a row for each query and a column for each artifact."""
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(600, 1)), rng.normal(size=(600, ARTIFACTS))
    normal = 0.08 * (0.8 * shared + 0.6 * own)
    small = np.where(rng.random((600, 1)) < 0.7, 0.0, normal)
    rare = np.where(rng.random((600, 1)) < 0.02, -1.0 + 0.3 * rng.random((600, ARTIFACTS)), 0.3 * normal)
    cards = {card: differences(card) for card in sorted(path.parent.name for path in CARDS.glob("*/report.json"))}
    return {**cards, "normal": normal, "many zeros": small, "rare losses": rare}


def tilted(values: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Weights of the queries, proportional to exp(t . values), that give the artifacts these means."""
    goal = values - means

    def partition(strength: np.ndarray) -> tuple[float, np.ndarray]:
        exponents = goal @ strength
        raw = np.exp(exponents - exponents.max())
        return float(np.log(raw.sum()) + exponents.max()), goal.T @ (raw / raw.sum())

    found = minimize(partition, np.zeros(values.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9})
    raw = np.exp(goal @ found.x - (goal @ found.x).max())
    weights = raw / raw.sum()
    assert np.allclose(weights @ values, means, atol=1e-5)
    return weights


def simulate(
    values: np.ndarray,
    means: list[float],
    queries: int,
    samples: int,
    resamples: int = 400,
    seed: int = 0,
    with_holm: bool = False,
) -> Rates:
    """Sample queries under which the artifacts have the given mean differences, and decide.

    Args:
        values: Differences, `(queries, artifacts)`.
        means: Mean difference of each artifact.
        queries: Queries of a sample.
        samples: Number of samples.
        resamples: As for `compare`.
        seed: Random seed.
        with_holm: Also correct all artifacts by Holm's method, which takes the comparisons of all of them.
    """
    rng = np.random.default_rng(seed)
    weights = tilted(values, np.array(means))
    names = [f"q{number:04d}" for number in range(queries)]
    teacher = dict.fromkeys(names, 0.0)
    found = np.zeros(3)
    for sample in range(samples):
        drawn = values[rng.choice(len(values), size=queries, p=weights)]
        deltas: list[Delta] = []
        decided: list[bool] = []
        for column in drawn.T:
            student = dict(zip(names, column.tolist(), strict=True))
            deltas.append(compare(teacher, student, MARGIN, resamples=resamples, seed=sample))
            decided = [delta.decision == "non-inferior" for delta in fixed_sequence(deltas)]
            if not (decided[-1] or with_holm):  # nothing after it is tested
                break
        found += [
            any(passed and mean <= -MARGIN for passed, mean in zip(decided, means, strict=False)),
            decided[0],
            with_holm and holm(deltas)[0].decision == "non-inferior",
        ]
    sequence, first, first_holm = (found / samples).tolist()
    return Rates(sequence, first, first_holm if with_holm else None)


def row(name: str, queries: int, samples: int) -> str:
    """The row of a shape of differences: all three scenarios."""
    values, lost, kept = shapes()[name], -MARGIN, 0.0
    artifacts = values.shape[1]
    worse = simulate(values, [lost] * artifacts, queries, samples)
    later = simulate(values, [kept, *[lost] * (artifacts - 1)], queries, samples)
    equal = simulate(values, [kept] * artifacts, queries, samples, with_holm=True)
    rates = f"{worse.sequence:9.2%} {later.sequence:9.2%} {equal.first:7.1%} {equal.first_holm:7.1%}"
    return f"{name:14} {queries:8} {rates}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--queries", type=int, nargs="+", default=[300])
    parser.add_argument("--processes", type=int, help="by default one for each core")
    arguments = parser.parse_args()
    head = f"{'all lose':>9} {'next ones':>9} {'power':>7} {'(Holm)':>7}"
    print(f"{'differences of':14} {'queries':>8} {head}")
    with ProcessPoolExecutor(arguments.processes) as pool:
        rows = [
            pool.submit(row, name, queries, arguments.samples) for name in shapes() for queries in arguments.queries
        ]
        for each in rows:
            print(each.result(), flush=True)


if __name__ == "__main__":
    main()
