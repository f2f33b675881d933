"""How metrics are called in tables."""

from __future__ import annotations

_KINDS = {"ndcg": "nDCG", "mrr": "MRR", "map": "MAP", "recall": "Recall", "p": "P", "hit": "Hit", "auc": "AUC"}


def label(metric: str) -> str:
    """How a table calls a metric: `nDCG@10`; any other column as it is."""
    kind, at, cutoff = metric.partition("@")
    if not at:
        return _KINDS.get(kind, kind)
    return f"{_KINDS.get(kind, kind.capitalize())}{at}{cutoff}"
