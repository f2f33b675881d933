"""From importance and a budget to a PruningPlan."""

from __future__ import annotations

import torch
from torch import Tensor

from hfcompress.errors import PlanError
from hfcompress.importance.importance import Importance, most_important
from hfcompress.plan import LayerPlan, PruningPlan
from hfcompress.recipe import PruneStep


def check_budget(budget: PruneStep, current: PruningPlan) -> None:
    """Check that a budget leaves something of a model, before any long work.

    Raises:
        PlanError: No layers, unknown or repeated ones or ones that are gone, or no heads.
    """
    left = [layer.layer for layer in current.layers]
    if budget.layers is not None:
        faults = [layer for layer in budget.layers if layer >= current.layers_of]
        if faults or not budget.layers or len(set(budget.layers)) != len(budget.layers):
            raise PlanError(
                "The layers to keep are not valid",
                value=budget.layers,
                expected=f"at least one of the layers 0 to {current.layers_of - 1}, each once",
                remedy="correct prune.layers",
            )
        if gone := sorted(set(budget.layers) - set(left)):
            raise PlanError(
                "The budget keeps layers that this model no longer has",
                value=gone,
                expected=f"layers among {left}",
                remedy="correct prune.layers",
            )
    heads = [len(layer.heads) for layer in current.layers if layer.layer in (budget.layers or left)]
    counts = heads if budget.spread == "uniform" else [sum(heads)]
    share = 1.0 if budget.heads is None else budget.heads
    if not any(round(share * count) for count in counts):
        raise PlanError(
            "The budget leaves no attention head, so the query never meets the document",
            value=share,
            expected=f"a share that comes to at least one of {sum(heads)} heads",
            remedy="raise prune.heads",
        )


def plan_for_budget(importance: Importance, current: PruningPlan, budget: PruneStep) -> PruningPlan:
    """Keep the most important heads and FFN neurons that an explicit budget allows.

    Args:
        importance: Importance of what `current` has left.
        current: The model's plan; the full one for a teacher.
        budget: Shares of heads and FFN neurons, and layers, to keep; shares count what the kept layers have now.

    Returns:
        A plan in the numbering of the first teacher.

    Raises:
        PlanError: The budget leaves nothing, or names layers that are gone.
    """
    check_budget(budget, current)
    wanted = [layer.layer for layer in current.layers] if budget.layers is None else sorted(budget.layers)
    position = {layer.layer: index for index, layer in enumerate(current.layers)}
    places = [position[layer] for layer in wanted]
    heads = _keep([importance.heads[place] for place in places], budget.heads, 1, budget.spread)
    ffn = _keep([importance.ffn[place] for place in places], budget.ffn, budget.ffn_multiple, budget.spread)
    layers = []
    for place, kept_heads, kept_ffn in zip(places, heads, ffn, strict=True):
        layer = current.layers[place]
        layers.append(
            LayerPlan(
                layer.layer,
                tuple(layer.heads[index] for index in kept_heads),
                tuple(layer.ffn[index] for index in kept_ffn),
            )
        )
    return PruningPlan(current.layers_of, current.heads_of, current.ffn_of, tuple(layers))


def _keep(scores: list[Tensor], share: float | None, multiple: int, spread: str) -> list[list[int]]:
    """Positions to keep in each layer; counts of a layer are rounded to the nearest multiple."""
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
