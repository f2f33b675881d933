"""Pruning summaries for reports, made from a plan or read from a checkpoint folder."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PretrainedConfig

from hfcompress.errors import OutputError
from hfcompress.models.layout import PRUNING_FILE
from hfcompress.models.macs import encoder_macs
from hfcompress.models.plan import PruningPlan
from hfcompress.models.surgery import needs_custom_code, plan_of_config
from hfcompress.pruning.importance.importance import Importance
from hfcompress.report.report import RunReport
from hfcompress.report.structure import LayerKept, PruningSummary


def pruning_summary(
    importance: Importance, before: PruningPlan, plan: PruningPlan, macs_kept: float, custom_code: bool
) -> PruningSummary:
    """Summary of a plan, with the importance of every head that the model had `before`."""
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
        encoder_macs_kept=macs_kept,
        custom_code=custom_code,
    )


def read_pruning(folder: Path, config: PretrainedConfig, report: RunReport | None) -> PruningSummary:
    """Pruning summary of a checkpoint: from its report or `pruning.json`, otherwise from the plan in its config.

    Raises:
        OutputError: `pruning.json` cannot be read.
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
    """Summary of a plan without importance."""
    full = PruningPlan.full(plan.layers_of, plan.heads_of, plan.ffn_of)
    heads = [torch.zeros(plan.heads_of) for _ in range(plan.layers_of)]
    unknown = Importance.additive("unknown", heads, [torch.zeros(plan.ffn_of) for _ in range(plan.layers_of)])
    share = encoder_macs(config, plan) / encoder_macs(config, full)
    return pruning_summary(unknown, full, plan, share, needs_custom_code(config, plan))
