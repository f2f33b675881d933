"""Fit the scale and shift that bring the logits of a compressed model nearest to its teacher's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import median_abs_deviation

from hfcompress.report.fidelity import ScoreMap

FEWEST_PAIRS = 32  # below, two numbers fit whatever there is
FEWEST_QUERIES = 2
LEAST_GAIN = 0.01  # of the root mean square; below, the scores are on the teacher's scale already
# Residuals of up to so many standard deviations count by their square, those beyond by their magnitude: 95% of the
# efficiency of least squares where residuals are normal (Huber, "Robust Statistics", 1981).
HUBER = 1.345
ROUNDS = 3  # in which the scale of the residuals settles


def fit_score_map(
    student: Sequence[Sequence[float]], teacher: Sequence[Sequence[float]], split: str
) -> ScoreMap | None:
    """Regress the teacher's logits on those of a compressed model, over the pairs of all queries together.

    The regression is Huber's: least squares for the mass of the pairs, absolute differences for those far off, so that
    a few pairs that the student takes for something else do not turn the line. The conditional centre of the teacher's
    logit is what a threshold needs: a pair changes sides least often where the student's threshold is the logit at
    which the teacher's is as often above its own as below.

    Losses on differences within a query (MarginMSE, softmax) leave a shift of each query free. What is fitted is the
    shift of all queries together.

    Args:
        student: Logits of the compressed model for the pairs of each query.
        teacher: The teacher's logits for the same pairs.
        split: Name of the split that the pairs are from.

    Returns:
        The map; that of the identity where a fit does not bring the logits nearer. None if there are too few pairs, or
        the teacher's logits do not grow with the student's.
    """
    if len(student) < FEWEST_QUERIES or sum(map(len, student)) < FEWEST_PAIRS:
        return None
    before, after = (np.concatenate([np.asarray(row, np.float64) for row in rows]) for rows in (student, teacher))
    found = _huber_line(before, after)
    if found is None:
        return None
    drifts = before - after, found[0] * before + found[1] - after
    sizes = [root_mean_square(drift) for drift in drifts]
    gains = sizes[1] <= (1 - LEAST_GAIN) * sizes[0]
    scale, shift = found if gains else (1.0, 0.0)
    return ScoreMap(
        scale=scale,
        shift=shift,
        split=split,
        queries=len(student),
        pairs=len(before),
        before=sizes[0],
        after=sizes[1 if gains else 0],
    )


def root_mean_square(values: np.ndarray) -> float:
    """Root of the mean of squares."""
    return float(np.sqrt(np.mean(np.square(values))))


def _huber_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float] | None:
    """Slope and intercept of y over x; None unless the slope is positive."""
    centre, width = float(np.median(x)), float(np.std(x))
    if not width > 0:
        return None
    scaled = (x - centre) / width  # so that both unknowns are in units of y
    design = np.stack([scaled, np.ones_like(scaled)], axis=1)
    line = np.linalg.lstsq(design, y, rcond=None)[0]
    for _ in range(ROUNDS):
        spread = float(median_abs_deviation(design @ line - y, scale="normal"))
        if not spread > 0:
            break  # half of the pairs are on the line
        line = least_squares(lambda unknown: design @ unknown - y, line, loss="huber", f_scale=HUBER * spread).x
    slope = float(line[0]) / width
    return (slope, float(line[1]) - slope * centre) if slope > 0 else None
