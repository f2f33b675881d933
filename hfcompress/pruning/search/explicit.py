"""Pruning plans for explicit shares of heads, FFN neurons and layers, without a search."""

from __future__ import annotations

import torch
from torch import Tensor

from hfcompress.errors import PlanError
from hfcompress.models.plan import PruningPlan
from hfcompress.pruning.importance.importance import Importance, most_important
from hfcompress.recipe import PruneStep


def check_shares(step: PruneStep, current: PruningPlan) -> None:
    """Check that explicit shares keep something of a model, before any long work.

    Raises:
        PlanError: There are no layers to keep, some are unknown, repeated or pruned already, or no head is kept.
    """
    remaining = [layer.layer for layer in current.layers]
    if step.layers is not None:
        unknown = [layer for layer in step.layers if layer >= current.layers_of]
        if unknown or not step.layers or len(set(step.layers)) != len(step.layers):
            raise PlanError(
                "The layers to keep are not valid",
                value=step.layers,
                expected=f"at least one of the layers 0 to {current.layers_of - 1}, each once",
                remedy="correct prune.layers",
            )
        if pruned := sorted(set(step.layers) - set(remaining)):
            raise PlanError(
                "prune.layers keeps layers that this model no longer has",
                value=pruned,
                expected=f"layers among {remaining}",
                remedy="correct prune.layers",
            )
    heads = [len(layer.heads) for layer in current.layers if layer.layer in (step.layers or remaining)]
    counts = heads if step.spread == "uniform" else [sum(heads)]
    share = 1.0 if step.heads is None else step.heads
    if not any(round(share * count) for count in counts):
        raise PlanError(
            "prune.heads keeps no attention head, so query and document tokens never interact",
            value=share,
            expected=f"a share that comes to at least one of {sum(heads)} heads",
            remedy="raise prune.heads",
        )


def plan_for_shares(importance: Importance, current: PruningPlan, step: PruneStep) -> PruningPlan:
    """Keep the most important heads and FFN neurons that explicit shares allow.

    Args:
        importance: Importance of the heads and FFN neurons that `current` keeps.
        current: The model's plan; the full plan for a model that was never pruned.
        step: Shares of heads and FFN neurons, and layers, to keep. Shares are of what the kept layers have now.

    Returns:
        A plan in the numbering of the original model.

    Raises:
        PlanError: The shares keep nothing, or name layers that are pruned already.
    """
    check_shares(step, current)
    index_of = {layer.layer: index for index, layer in enumerate(current.layers)}
    indices = list(index_of.values()) if step.layers is None else [index_of[layer] for layer in sorted(step.layers)]
    heads = _keep([importance.heads[index] for index in indices], step.heads, 1, step.spread)
    ffn = _keep([importance.ffn[index] for index in indices], step.ffn, step.ffn_multiple, step.spread)
    return current.subset(zip(indices, heads, ffn, strict=True))


def _keep(scores: list[Tensor], share: float | None, multiple: int, spread: str) -> list[list[int]]:
    """Indices to keep in each layer; the counts are rounded to the nearest multiple."""
    if share is None:
        return [list(range(len(score))) for score in scores]
    if spread == "uniform":
        counts = [share * len(score) for score in scores]
    else:
        pooled = torch.cat(scores)
        total = round(share * len(pooled))
        order = torch.argsort(pooled, descending=True, stable=True)[:total]
        owner = torch.cat([torch.full((len(score),), index) for index, score in enumerate(scores)])
        counts = torch.bincount(owner[order], minlength=len(scores)).tolist()
    kept = []
    for score, count in zip(scores, counts, strict=True):
        rounded = len(score) if count >= len(score) else min(len(score), multiple * round(count / multiple))
        kept.append(most_important(score, rounded))
    return kept
