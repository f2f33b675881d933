"""Estimate of the peak memory of pruning."""

from __future__ import annotations

from hfcompress.models.size import FP32, ModelSize
from hfcompress.pruning.calibration import CALIBRATION_DOCUMENTS, HELD_OUT, LISTS_PER_BATCH
from hfcompress.pruning.importance.obs import CACHED_BYTES
from hfcompress.pruning.search.calibration_loss import CACHE_BYTES
from hfcompress.utils.memory import MemoryEstimate

FP64 = 8  # bytes of a number
# Float64 matrices of the size of the largest H at a time: H, damped, rounded, its Cholesky factor, its inverse.
FACTORS = 5
# Hidden states of each fitting token in the sequential update: inputs of the dense and of the pruned layer, both
# targets, and the outputs of the dense layer.
STATES = 5


def pruning_memory(size: ModelSize, importance: str, max_length: int, queries: int) -> MemoryEstimate:
    """Estimate the memory of importance, search and weight update.

    The weights take 4 bytes a parameter. Beside them are, one after the other:

    - gradients of the margins, or of `fisher`: the activations of a batch (see `ModelSize.activations`), and for `obs`
      a float64 matrix of directions, `h^2`, for each sublayer;
    - `obs`: of each sublayer with c inputs, the second moment `(c + 1)^2` and the weight `h (c + 1)` in the precision
      of the model, and directions and their factors; then a few float64 copies of the largest second moment;
    - search: the second moments, cached weights and hidden states up to their limits, and the layers of a plan;
    - sequential update: the second moments, and hidden states of all fitting batches.

    Pairs are taken to have `max_length` tokens. `scripts/large_models.py` shows the actual peak.

    Args:
        size: The dense model.
        importance: `obs`, `fisher` or `magnitude`.
        max_length: Longest input in tokens.
        queries: Calibration queries.
    """
    tokens = CALIBRATION_DOCUMENTS * max_length  # of a list
    caches = min(CACHE_BYTES, round(FP32 * HELD_OUT * queries * tokens * size.hidden * len(size.columns)))
    phases = [caches + FP32 * size.encoder]
    moments = 0
    if importance == "fisher":
        phases.append(size.activations(CALIBRATION_DOCUMENTS, max_length))
    if importance == "obs":
        inputs = [columns for layer in size.columns for columns in layer if columns]
        moments = sum(FP32 * (columns + 1) * (columns + 1 + size.hidden) for columns in inputs)
        directions = FP64 * len(inputs) * size.hidden**2
        phases[0] += moments + min(CACHED_BYTES, FP32 * size.encoder)
        phases.append(directions + size.activations(LISTS_PER_BATCH * CALIBRATION_DOCUMENTS, max_length))
        phases.append(moments + 2 * directions + FACTORS * FP64 * (max(inputs, default=0) + 1) ** 2)
        phases.append(moments + round(STATES * FP32 * (1 - HELD_OUT) * queries * tokens * size.hidden))
    return MemoryEstimate(
        "Pruning",
        least=size.weights + moments,
        peak=size.weights + max(phases),
        counted="weights and second moments" if moments else "weights",
        remedy="shorten max_length or lower calibration_queries"
        + (", or set importance to magnitude, which keeps no second moments" if moments else ""),
    )
