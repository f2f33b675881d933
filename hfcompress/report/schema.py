"""Base class and shared types of all parts of a report."""

from __future__ import annotations

from pydantic import ConfigDict

from hfcompress.utils.settings import Closed


class ReportPart(Closed):
    """A part of the report. Unknown keys, NaN and infinity are errors."""

    model_config = ConfigDict(allow_inf_nan=False)


class Interval(ReportPart):
    """A confidence interval.

    Attributes:
        low: Lower end.
        high: Upper end.
        confidence: Confidence level, e.g. 0.95.
    """

    low: float
    high: float
    confidence: float
