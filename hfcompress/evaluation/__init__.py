"""Metrics, benchmark, significance and verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfcompress.evaluation.ranking_metric import RankingMetric

__all__ = ["RankingMetric"]


def __getattr__(name: str) -> Any:
    if name == "RankingMetric":  # loads evaluate and datasets, which other modules of this package do not need
        from hfcompress.evaluation.ranking_metric import RankingMetric

        return RankingMetric
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
