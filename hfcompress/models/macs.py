"""MACs of pruned encoders."""

from __future__ import annotations

from transformers import PretrainedConfig

from hfcompress.models.architectures import architecture_of, head_size
from hfcompress.models.plan import PruningPlan


def encoder_macs(config: PretrainedConfig, plan: PruningPlan) -> int:
    """MACs per token in the linear layers of the pruned encoder, without the attention products."""
    hidden = config.hidden_size
    head = 4 * hidden * head_size(config)
    neuron = (1 + architecture_of(config).ffn_blocks) * hidden
    return sum(head * len(layer.heads) + neuron * len(layer.ffn) for layer in plan.layers)
