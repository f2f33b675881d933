"""Parts of a report about the scores themselves: how far they are from the teacher's, and what that does to thresholds.

Ranking metrics do not see a monotone change of all scores. Whoever cuts at a threshold does.
"""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from hfcompress.report.schema import ReportPart


class ScoreMap(ReportPart):
    """The scale and shift that bring an artifact's logits nearest to the teacher's: scale * logit + shift.

    Attributes:
        scale: Factor of the logit, above 0, so that the ranking is kept.
        shift: What is added to it.
        split: The split on whose pairs it was fitted: `dev`, or `train` without a dev split.
        queries: Number of its queries.
        pairs: Number of their pairs.
        before: Root mean square of the differences to the teacher's logits on these pairs, without the map.
        after: The same with the map.
        folded: Whether the file of the artifact contains the map already, so that its logits need no map.
        reason: Why it does not; empty if it does.
    """

    scale: PositiveFloat
    shift: float
    split: str
    queries: int
    pairs: int
    before: float
    after: float
    folded: bool = False
    reason: str = ""


class Estimate(ReportPart):
    """A share with its bootstrap interval over queries.

    Attributes:
        value: The share.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


class ThresholdDecisions(ReportPart):
    """What a threshold lets through.

    Attributes:
        accepted: Share of the pairs that score the threshold or more.
        precision: Share of the relevant pairs among them; None if there are none. Pairs without a judgement are not
            relevant.
        recall: Share of the relevant pairs that are among them; None without relevant pairs. Relevant documents that
            are no candidates do not count.
    """

    accepted: float
    precision: Estimate | None
    recall: Estimate | None


class Threshold(ReportPart):
    """A threshold on the teacher's scores.

    Attributes:
        score: The threshold on the score that `rank` returns, after the activation.
        logit: The threshold on the logit.
        best: Whether it is the teacher's own best threshold: that of the highest F1 on the labels of dev pairs.
        teacher: What it lets through by the teacher's scores.
    """

    score: float
    logit: float
    best: bool
    teacher: ThresholdDecisions


class ThresholdFidelity(ReportPart):
    """What an artifact does with a threshold on the teacher's scores.

    Attributes:
        changed: Share of the pairs that the teacher's scores put on one side of the threshold and the artifact's on the
            other.
        artifact: What the threshold lets through by the artifact's scores.
        corresponding: Threshold on the artifact's score, after the activation, that corresponds to the teacher's: that
            at which the map of an artifact without calibration reaches it. None for a calibrated artifact, whose
            threshold is the teacher's own.
    """

    changed: Estimate
    artifact: ThresholdDecisions
    corresponding: float | None = None


class ScoreDrift(ReportPart):
    """Differences between the scores of an artifact and the teacher's for the same pairs.

    Attributes:
        rms: Root mean square.
        p95: 95th percentile of the magnitudes.
    """

    rms: float
    p95: float


class ReliabilityBin(ReportPart):
    """Pairs with similar scores.

    Attributes:
        score: Mean of their scores, after the activation.
        relevant: Share of them that is relevant.
        pairs: Their number.
    """

    score: float
    relevant: float
    pairs: int


class ArtifactFidelity(ReportPart):
    """Score fidelity of one artifact.

    Attributes:
        name: Name of the artifact.
        map: Scale and shift to the teacher's logits; None if none was fitted.
        logits: Drift of the logits.
        activated: Drift of the scores after the activation; that of the logits if the activation is the identity.
        query_shift: Standard deviation over queries of the mean difference of a query's logits. Losses on differences
            within a query leave it free, no map of all scores removes it, and it is part of the drift.
        thresholds: What it does with each of the thresholds of the report, in their order.
        reliability: Its pairs by their scores.
    """

    name: str
    map: ScoreMap | None
    logits: ScoreDrift
    activated: ScoreDrift
    query_shift: float
    thresholds: list[ThresholdFidelity]
    reliability: list[ReliabilityBin]


class ScoreFidelity(ReportPart):
    """How far the scores of the artifacts mean what the teacher's mean, on all test pairs.

    Attributes:
        activation: Class of the activation that `rank` applies, e.g. `Sigmoid`.
        queries: Number of queries.
        pairs: Number of their pairs.
        judged_queries: Number of queries with a relevant document, on which precision, recall and reliability are
            measured.
        confidence: Confidence level of the intervals.
        thresholds: The teacher's best threshold, where dev has labels, and fixed ones.
        reliability: Pairs by the teacher's scores.
        artifacts: The artifacts, in the order of the report.
    """

    activation: str
    queries: int
    pairs: int
    judged_queries: int
    confidence: float
    thresholds: list[Threshold]
    reliability: list[ReliabilityBin]
    artifacts: list[ArtifactFidelity] = Field(min_length=1)
