"""Estimate of the peak memory of export and int8."""

from __future__ import annotations

from hfcompress.models.size import ModelSize
from hfcompress.utils.memory import MemoryEstimate

# Copies of the weights at the peak, the model included: the graph, its file, what the runtime opens to check it, and
# what the quantizer reads; and what exporters and runtimes themselves take. Measured with `scripts/large_models.py`.
COPIES = 5
LIBRARIES = 800_000_000


def export_memory(size: ModelSize) -> MemoryEstimate:
    """Estimate the memory of exports and their quantization, which are made one after the other.

    Args:
        size: The model to export.
    """
    return MemoryEstimate(
        "Export with quantization",
        least=2 * size.weights,
        peak=COPIES * size.weights + LIBRARIES,
        counted="the weights in the model and in its graph",
        remedy="prune the vocabulary or more of the encoder, or export on a machine with more memory",
    )
