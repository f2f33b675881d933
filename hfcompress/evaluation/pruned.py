"""From a plan, or from what was written beside a checkpoint, to what a report says of pruning."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PretrainedConfig

from hfcompress.errors import OutputError
from hfcompress.evaluation.report import RunReport
from hfcompress.evaluation.structure import LayerKept, PruningSummary
from hfcompress.importance.importance import Importance
from hfcompress.layout import PRUNING_FILE
from hfcompress.plan import PruningPlan
from hfcompress.surgery import encoder_flops, needs_custom_code, plan_of_config


def pruning_summary(
    importance: Importance, before: PruningPlan, plan: PruningPlan, flops_kept: float, custom_code: bool
) -> PruningSummary:
    """What a plan keeps, with the importance of every head that there was."""
    scores = [[0.0] * before.heads_of for _ in range(before.layers_of)]
    for layer, values in zip(before.layers, importance.heads, strict=True):
        for head, value in zip(layer.heads, values.tolist(), strict=True):
            scores[layer.layer][head] = value
    return PruningSummary(
        importance=importance.method,
        layers_of=plan.layers_of,
        layers=[
            LayerKept(
                layer=layer.layer,
                heads=list(layer.heads),
                heads_of=plan.heads_of,
                ffn=len(layer.ffn),
                ffn_of=plan.ffn_of,
            )
            for layer in plan.layers
        ],
        head_importance=scores,
        encoder_flops_kept=flops_kept,
        custom_code=custom_code,
    )


def read_pruning(folder: Path, config: PretrainedConfig, report: RunReport | None) -> PruningSummary:
    """What was pruned of a model: as its report or the command that pruned it tells, else from its plan alone.

    Raises:
        OutputError: What the command wrote cannot be read.
    """
    if report and report.pruning:
        return report.pruning
    if (path := folder / PRUNING_FILE).is_file():
        try:
            return PruningSummary.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise OutputError(
                f"{path} cannot be read",
                value=str(error).splitlines()[0],
                expected="what `hfcompress prune` of this version wrote",
                remedy="prune again, or remove the file: the plan in config.json is then shown alone",
            ) from error
    return plan_summary(config, plan_of_config(config))


def plan_summary(config: PretrainedConfig, plan: PruningPlan) -> PruningSummary:
    """What a plan keeps, where the importance of what it drops is not known."""
    full = PruningPlan.full(plan.layers_of, plan.heads_of, plan.ffn_of)
    heads = [torch.zeros(plan.heads_of) for _ in range(plan.layers_of)]
    unknown = Importance.additive("unknown", heads, [torch.zeros(plan.ffn_of) for _ in range(plan.layers_of)])
    share = encoder_flops(config, plan) / encoder_flops(config, full)
    return pruning_summary(unknown, full, plan, share, needs_custom_code(config, plan))
