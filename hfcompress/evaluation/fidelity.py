"""Score fidelity: how far an artifact's scores are from its teacher's, and what that does to thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import bootstrap
from torch import nn

from hfcompress.errors import DataError
from hfcompress.evaluation.metrics import Qrels, Run
from hfcompress.evaluation.score_map import root_mean_square
from hfcompress.models.sentence_transformers import ACTIVATIONS
from hfcompress.rankers.load import activation_by_name
from hfcompress.report.fidelity import (
    ArtifactFidelity,
    Estimate,
    ReliabilityBin,
    ScoreDrift,
    ScoreFidelity,
    ScoreMap,
    Threshold,
    ThresholdDecisions,
    ThresholdFidelity,
)

FIXED = (0.3, 0.5, 0.7)
RESAMPLES = 2_000
_BATCH = 50  # resamples in memory at a time: 50 x shares x queries x 16 bytes
BINS = 10
STEEPEST = 60.0  # logits beyond are the ends of every activation in double precision


@dataclass(frozen=True)
class ScoreScale:
    """The scale of scores: logits, and what `rank` makes of them.

    Attributes:
        name: Full name of the activation, a key of `ACTIVATIONS`.
    """

    name: str

    @property
    def short(self) -> str:
        """Class of the activation, e.g. `Sigmoid`."""
        return self.name.rpartition(".")[2]

    @property
    def is_identity(self) -> bool:
        """Whether `rank` returns the logits."""
        return ACTIVATIONS[self.name] is nn.Identity

    def activated(self, logits: np.ndarray) -> np.ndarray:
        """The scores that `rank` returns for logits."""
        return activation_by_name(self.name)(np.asarray(logits, np.float64))

    def logit(self, score: float) -> float:
        """The logit of a score.

        Raises:
            DataError: No logit has this score.
        """
        if self.is_identity:
            return score

        def difference(logit: float) -> float:
            return float(self.activated(np.array([logit]))[0]) - score

        low, high = difference(-STEEPEST), difference(STEEPEST)
        if not low < 0 < high:
            raise DataError(
                "The threshold is no score of this model",
                value=score,
                expected=f"a number between {low + score:g} and {high + score:g}, since rank applies {self.short}",
                remedy="choose a threshold between them",
            )
        return float(brentq(difference, -STEEPEST, STEEPEST, xtol=1e-12))

    def fixed_thresholds(self) -> list[float]:
        """Logits of 0.3, 0.5 and 0.7: of the score that `rank` returns, or of the sigmoid where it returns logits."""
        scale = ScoreScale(next(iter(ACTIVATIONS))) if self.is_identity else self
        ends = scale.activated(np.array([-STEEPEST, STEEPEST]))
        return [scale.logit(score) for score in FIXED if ends[0] < score < ends[1]]


def best_threshold(qrels: Qrels, run: Run, relevant_from: int = 1) -> float | None:
    """The logit with the highest F1 as a threshold over the pairs of all judged queries together.

    Args:
        qrels: Relevance grades; pairs without one are not relevant.
        run: Logits.
        relevant_from: Lowest grade that is relevant.

    Returns:
        A number between two neighbouring logits, or None if no pair is relevant or all logits are equal.
    """
    judged = {query: scores for query, scores in run.items() if query in qrels}
    labels, scores = _flat(judged, qrels, relevant_from)
    order = np.argsort(-scores, kind="stable")
    labels, scores = labels[order], scores[order]
    ends = np.flatnonzero(np.diff(scores) < 0)  # the threshold lies behind these
    if not labels.any() or not len(ends):
        return None
    found = np.cumsum(labels)[ends]
    f1 = 2 * found / (ends + 1 + labels.sum())
    place = ends[int(np.argmax(f1))]
    return float((scores[place] + scores[place + 1]) / 2)


def score_fidelity(
    teacher: Run,
    artifacts: Mapping[str, Run],
    qrels: Qrels,
    scale: ScoreScale,
    *,
    best: float | None = None,
    others: Sequence[float] = (),
    maps: Mapping[str, ScoreMap] | None = None,
    relevant_from: int = 1,
    confidence: float = 0.95,
    seed: int = 0,
) -> ScoreFidelity:
    """Compare the scores of artifacts with the teacher's, pair by pair.

    Args:
        teacher: The teacher's logits.
        artifacts: Logits of each artifact for the same pairs, by its name.
        qrels: Relevance grades; queries without any are left out of precision, recall and reliability.
        scale: The scale of the scores of all.
        best: Logit that is the teacher's best threshold, chosen on other queries.
        others: Logits that are further thresholds.
        maps: Scale and shift of each artifact to the teacher's logits, as far as they are known.
        relevant_from: Lowest grade that is relevant.
        confidence: Confidence level of the intervals.
        seed: Seed of the bootstrap.
    """
    judged = {query: scores for query, scores in teacher.items() if query in qrels}
    levels = [*([best] if best is not None else []), *others]
    share = _Shares(confidence, seed)
    reference = _Pairs(teacher, judged, qrels, relevant_from)
    edges = _edges(scale, reference.logits)
    decisions = reference.decisions(levels, share)
    activated = scale.activated(np.array(levels))
    results = []
    for name, run in artifacts.items():
        pairs = _Pairs(run, judged, qrels, relevant_from, order=teacher)
        score_map = (maps or {}).get(name)
        own = _corresponding(levels, score_map, scale)
        changed = share.of(
            [reference.per_query((reference.logits >= level) != (pairs.logits >= level)) for level in levels],
            [reference.per_query(np.ones(len(pairs.logits), bool))] * len(levels),
        )
        through = pairs.decisions(levels, share)
        results.append(
            ArtifactFidelity(
                name=name,
                map=score_map,
                logits=_drift(pairs.logits - reference.logits),
                activated=_drift(scale.activated(pairs.logits) - scale.activated(reference.logits)),
                query_shift=float(np.std(pairs.per_query(pairs.logits - reference.logits) / pairs.sizes)),
                thresholds=[
                    ThresholdFidelity(changed=moved, artifact=kept, corresponding=there)
                    for moved, kept, there in zip(changed, through, own, strict=True)
                    if moved is not None
                ],
                reliability=pairs.reliability(edges, scale),
            )
        )
    return ScoreFidelity(
        activation=scale.short,
        queries=len(teacher),
        pairs=len(reference.logits),
        judged_queries=len(judged),
        confidence=confidence,
        thresholds=[
            Threshold(score=float(score), logit=level, best=number == 0 and best is not None, teacher=found)
            for number, (score, level, found) in enumerate(zip(activated, levels, decisions, strict=True))
        ],
        reliability=reference.reliability(edges, scale),
        artifacts=results,
    )


class _Shares:
    """Shares over the pairs of all queries together, with bootstrap intervals in which whole queries are drawn."""

    def __init__(self, confidence: float, seed: int):
        self.confidence, self.seed = confidence, seed

    def of(self, parts: Sequence[np.ndarray], wholes: Sequence[np.ndarray]) -> list[Estimate | None]:
        """The share of each part in its whole, from the counts of each query; None where the whole is empty."""
        if not parts:
            return []
        counts = np.array(parts, np.float64), np.array(wholes, np.float64)
        values = _ratio(*counts)
        lows = highs = values
        if counts[0].shape[1] > 1:
            interval = bootstrap(
                counts,
                _ratio,
                n_resamples=RESAMPLES,
                batch=_BATCH,
                vectorized=True,
                paired=True,
                axis=-1,
                confidence_level=self.confidence,
                method="percentile",
                rng=np.random.default_rng(self.seed),
            ).confidence_interval
            lows, highs = np.atleast_1d(interval.low), np.atleast_1d(interval.high)
        return [
            Estimate(value=float(value), low=float(low), high=float(high)) if whole.sum() else None
            for value, low, high, whole in zip(values, lows, highs, counts[1], strict=True)
        ]


def _ratio(parts: np.ndarray, wholes: np.ndarray, axis: int = -1) -> np.ndarray:
    """Sum of the parts over sum of the wholes; 0 where a resample has no whole."""
    above, below = parts.sum(axis=axis), wholes.sum(axis=axis)
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


class _Pairs:
    """Logits and labels of all pairs in one order, query after query."""

    def __init__(self, run: Run, judged: Run, qrels: Qrels, relevant_from: int, order: Run | None = None):
        ordered = order or run
        self.sizes = np.array([len(scores) for scores in ordered.values()])
        self.logits = np.array(
            [run[query][document] for query, scores in ordered.items() for document in scores], np.float64
        )
        self.relevant = _flat(ordered, qrels, relevant_from)[0]
        self.judged = np.array([query in judged for query in ordered], bool)

    def per_query(self, values: np.ndarray) -> np.ndarray:
        """Sum of the values of each query's pairs: of chosen pairs, their number."""
        ends = np.cumsum(self.sizes)
        sums = np.concatenate([[0], np.cumsum(values)])
        return sums[ends] - sums[ends - self.sizes]

    def decisions(self, levels: Sequence[float], share: _Shares) -> list[ThresholdDecisions]:
        """What each threshold lets through; precision and recall on judged queries."""
        accepted = [self.logits >= level for level in levels]
        found = [self.per_query(each & self.relevant)[self.judged] for each in accepted]
        through = [self.per_query(each)[self.judged] for each in accepted]
        all_relevant = [self.per_query(self.relevant)[self.judged]] * len(levels)
        precision, recall = share.of(found, through), share.of(found, all_relevant)
        return [
            ThresholdDecisions(accepted=float(each.mean()), precision=one, recall=other)
            for each, one, other in zip(accepted, precision, recall, strict=True)
        ]

    def reliability(self, edges: np.ndarray, scale: ScoreScale) -> list[ReliabilityBin]:
        """Pairs of judged queries by their scores, in the bins between the inner edges; empty bins are left out."""
        chosen = np.repeat(self.judged, self.sizes)
        scores, relevant = scale.activated(self.logits[chosen]), self.relevant[chosen]
        places = np.searchsorted(edges, scores, side="right")
        return [
            ReliabilityBin(score=float(scores[own].mean()), relevant=float(relevant[own].mean()), pairs=int(own.sum()))
            for own in (places == place for place in range(len(edges) + 1))
            if own.any()
        ]


def _edges(scale: ScoreScale, logits: np.ndarray) -> np.ndarray:
    """Inner edges of the bins: tenths for scores from 0 to 1, else the deciles of the teacher's scores."""
    inner = np.arange(1, BINS) / BINS
    return inner if ACTIVATIONS[scale.name] is nn.Sigmoid else np.unique(np.quantile(scale.activated(logits), inner))


def _flat(run: Run, qrels: Qrels, relevant_from: int) -> tuple[np.ndarray, np.ndarray]:
    """Relevance and scores of all pairs of a run."""
    rows = [
        (qrels.get(query, {}).get(document, 0) >= relevant_from, score)
        for query, scores in run.items()
        for document, score in scores.items()
    ]
    return np.array([row[0] for row in rows], bool), np.array([row[1] for row in rows], np.float64)


def _drift(differences: np.ndarray) -> ScoreDrift:
    return ScoreDrift(rms=root_mean_square(differences), p95=float(np.quantile(np.abs(differences), 0.95)))


def _corresponding(levels: Sequence[float], score_map: ScoreMap | None, scale: ScoreScale) -> list[float | None]:
    """Thresholds on the artifact's scores at which its map reaches those of the teacher."""
    if score_map is None or score_map.folded:
        return [None] * len(levels)
    own = [(level - score_map.shift) / score_map.scale for level in levels]
    return [float(score) for score in scale.activated(np.array(own))]
