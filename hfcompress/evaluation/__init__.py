"""Metrics, verdict, measuring and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfcompress.evaluation.ranking_metric import RankingMetric

__all__ = ["RankingMetric"]


def __getattr__(name: str) -> Any:
    if name == "RankingMetric":  # loads evaluate and datasets, which most of what is here does not need
        from hfcompress.evaluation.ranking_metric import RankingMetric

        return RankingMetric
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
