"""The difference of an artifact to its teacher, with interval, tests and verdict."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hfcompress.report.schema import ReportPart

Verdict = Literal["non-inferior", "inferior", "inconclusive"]


class Delta(ReportPart):
    """Paired difference to the teacher in the primary metric.

    Attributes:
        mean: Mean of (artifact - teacher) over the queries.
        ci_low: Lower end of the paired bootstrap interval.
        ci_high: Upper end.
        confidence: Confidence level of the interval, e.g. 0.95.
        margin: Non-inferiority margin: the largest acceptable loss, set before the run.
        verdict: Verdict of the interval alone: `non-inferior` if `ci_low > -margin`, `inferior` if
            `ci_high < -margin`, else `inconclusive`.
        power: Probability of the verdict `non-inferior` with these queries if the true difference were zero.
        queries: Number of queries; None in older reports, like all attributes below.
        queries_needed: Number of such queries for a power of 80% at a true difference of zero.
        p_difference: Two-sided p-value of the paired randomisation test; the null hypothesis is no difference.
        p_non_inferior: One-sided p-value of the paired randomisation test; the null hypothesis is a loss of the margin
            or more.
        p_corrected: Largest `p_non_inferior` of this artifact and of those that were tested before it, see `sequence`
            of the report; for single sets, and in reports without `sequence`, `p_non_inferior` after Holm's correction.
        corrected: Final verdict: `verdict`, but `inconclusive` instead of `non-inferior` if `p_corrected` is above
            (1 - confidence) / 2, or if an artifact that was tested before this one is not non-inferior.
        worst_query: Id of the query with the lowest difference.
        worst: That difference.
        by_set: The same for each data set with 2 queries or more, if several were joined; p-values are corrected for
            all sets (in older reports also for all artifacts).
    """

    mean: float
    ci_low: float
    ci_high: float
    confidence: float
    margin: float
    verdict: Verdict
    power: float
    queries: int | None = None
    queries_needed: int | None = None
    p_difference: float | None = None
    p_non_inferior: float | None = None
    p_corrected: float | None = None
    corrected: Verdict | None = None
    worst_query: str | None = None
    worst: float | None = None
    by_set: dict[str, Delta] = Field(default_factory=dict)

    @property
    def decision(self) -> Verdict:
        """Final verdict: `corrected`, or `verdict` in older reports."""
        return self.corrected or self.verdict
