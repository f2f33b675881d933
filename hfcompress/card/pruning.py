"""The section on the pruned structure: the heat map, and a table of layers."""

from __future__ import annotations

from hfcompress.models.layout import STRUCTURE_FILE
from hfcompress.report.report import RunReport
from hfcompress.report.structure import PruningSummary
from hfcompress.utils import text as md


def structure(report: RunReport) -> str:
    """The remaining layers, heads, FFN neurons and vocabulary."""
    pruning = report.pruning
    if pruning is None:
        return "## What was pruned\n\nNothing: every artifact has the teacher's structure."
    kept = {layer.layer: layer for layer in pruning.layers}
    rows = []
    for row in range(pruning.layers_of):
        layer = kept.get(row)
        if layer is None:
            rows.append([str(row), "layer dropped", "layer dropped"])
        else:
            heads = ", ".join(map(str, sorted(layer.heads))) or "none"
            rows.append(
                [str(row), f"{len(layer.heads)} of {layer.heads_of}: {heads}", f"{layer.ffn:,} of {layer.ffn_of:,}"]
            )
    return (
        f"## What was pruned\n\n{len(pruning.layers)} of {md.count(pruning.layers_of, 'layer')} and "
        f"{md.percent(pruning.encoder_macs_kept)} of the encoder's MACs per token remain. Heads and FFN "
        f"neurons were ranked by {md.code(pruning.importance)}.{_target(pruning)}\n\n"
        f"![Heads and FFN neurons that each layer keeps]({STRUCTURE_FILE})\n\n"
        + md.details(
            "The same as a table (numbers as in the teacher, from 0)",
            md.table(["Layer", "Heads kept", "FFN neurons kept"], rows),
        )
    )


def _target(pruning: PruningSummary) -> str:
    """The target and the predicted speed-up, vocabulary pruning, and weight sparsity."""
    sentences = ""
    if pruning.predicted_speedup:
        sentences += (
            f" The plan was searched for the target {md.code(pruning.target)} in measured time; the search predicted "
            f"{pruning.predicted_speedup:.2f}x the speed of the unpruned model on the same runtime."
        )
    if (vocabulary := pruning.vocabulary) is not None:
        sentences += f" {vocabulary.in_words()}."
    if (weights := pruning.weights) is not None:
        which = "two of every four neighbours in a row" if weights.pattern == "2:4" else "the smallest of each matrix"
        sentences += (
            f" Of the weights in the encoder's linear layers, {md.percent(weights.zero_share, 1)} are zero ({which}). "
            "They are stored and multiplied like any other number: what they save is size under compression, in the "
            "table above, and the speed is what was measured with them."
        )
    return sentences
