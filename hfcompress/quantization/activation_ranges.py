"""Activation ranges for static int8 without outliers, from pairs of any length in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir
import onnxruntime
import torch
from onnxruntime.quantization.calibrate import CalibraterBase, HistogramCalibrater
from scipy.stats import entropy

from hfcompress.models.graph_files import data_file
from hfcompress.quantization.rounding import Range
from hfcompress.utils.machine import thread_count

BINS = 2048  # of magnitudes, for each tensor
LEVELS = 128  # that 8 bits give to magnitudes
STEP = 16  # bins between the candidate thresholds of `entropy`


def clipped_ranges(
    graph: onnx_ir.Model,
    batches: Sequence[dict[str, torch.Tensor]],
    operators: Sequence[str],
    method: str,
    percentile: float = 99.999,
) -> dict[str, Range]:
    """Measure the ranges of the inputs and outputs of operators, with outliers clipped.

    Pairs pass through the graph one by one, without padding, which would count as values. The first pass measures the
    range of each tensor, the second one a histogram of its magnitudes with a fixed number of bins. Memory is bounded by
    the activations of one pair; ONNX Runtime's own histograms keep those of all batches, which need the same shape.

    Args:
        graph: An exported graph in fp32.
        batches: Batches of model inputs, of any size and length.
        operators: Types of the operators.
        method: `percentile` keeps a percentage of the magnitudes in range, `entropy` minimizes the loss of information
            in the 8-bit histogram (Migacz, 8-bit inference with TensorRT, GTC 2017).
        percentile: Percentage for `percentile`.

    Returns:
        Minimum and maximum by tensor name.
    """
    with _probed(graph, operators) as (session, names):
        limits: dict[str, Range] = {}
        for values in _activations(session, names, batches):
            for name, value in values.items():
                low, high = limits.get(name, (np.inf, -np.inf))
                limits[name] = min(low, float(value.min())), max(high, float(value.max()))
        largest = {name: max(abs(low), abs(high)) for name, (low, high) in limits.items()}
        counts = {name: np.zeros(BINS, np.int64) for name in limits}
        for values in _activations(session, names, batches):
            for name, value in values.items():
                if largest[name]:
                    counts[name] += np.histogram(np.abs(value), BINS, (0, largest[name]))[0]
    ranges = {}
    for name, (low, high) in limits.items():
        kept = BINS
        if largest[name]:
            kept = entropy_cut(counts[name]) if method == "entropy" else percentile_cut(counts[name], percentile)
        cut = largest[name] * kept / BINS
        ranges[name] = max(low, -cut), min(high, cut)
    return ranges


def percentile_cut(counts: np.ndarray, percentile: float) -> int:
    """Number of the lowest bins that contain a percentage of all values.

    Args:
        counts: Histogram of magnitudes, shape `(bins,)`.
        percentile: The percentage.
    """
    return int(np.searchsorted(np.cumsum(counts), counts.sum() * percentile / 100)) + 1


def entropy_cut(counts: np.ndarray, levels: int = LEVELS, step: int = STEP) -> int:
    """Number of the lowest bins to keep such that the quantized histogram diverges least from the original one.

    For each candidate threshold, values beyond it are added to the last bin that is kept (P). The kept bins are merged
    into levels, and each level is spread over its non-empty bins (Q). The loss is the Kullback-Leibler divergence of P
    from Q.

    Args:
        counts: Histogram of magnitudes, shape `(bins,)`.
        levels: Quantization levels of magnitudes.
        step: Bins between candidate thresholds.
    """
    counts = counts.astype(np.float64)
    counts[0] = counts[1]  # zeros are exact with any scale, and would outweigh all other values
    cuts = [*range(levels, len(counts), step), len(counts)]
    losses = []
    for cut in cuts:
        inside = counts[:cut]
        level = np.arange(cut) * levels // cut
        used = inside > 0
        spread = np.bincount(level, inside) / np.maximum(np.bincount(level, used), 1)
        whole = inside.copy()
        whole[-1] += counts[cut:].sum()
        merged = np.where(used, spread[level], 0.0)
        losses.append(entropy(whole, merged) if merged.any() else np.inf)
    # The last of equal losses, which clips least.
    return cuts[len(cuts) - 1 - int(np.argmin(losses[::-1]))]


@contextmanager
def calibration_threads() -> Iterator[None]:
    """Within the block, calibration sessions of ONNX Runtime use `thread_count()` threads.

    ONNX Runtime's tools take no number of threads, and its default ignores a container's quota.
    """
    create = CalibraterBase.create_inference_session

    def create_limited(calibrater: CalibraterBase) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = thread_count()
        calibrater.infer_session = onnxruntime.InferenceSession(
            calibrater.augmented_model_path, options, providers=calibrater.execution_providers
        )

    CalibraterBase.create_inference_session = create_limited
    try:
        yield
    finally:
        CalibraterBase.create_inference_session = create


@contextmanager
def _probed(graph: onnx_ir.Model, operators: Sequence[str]) -> Iterator[tuple[onnxruntime.InferenceSession, list[str]]]:
    """A session that also returns the tensors that ONNX Runtime would quantize, and their names."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx_ir.save(graph, path, external_data=data_file(path).name)
        probe = HistogramCalibrater(path, list(operators), str(path.with_name("probe.onnx")), True)
        probe.augment_graph()
        with calibration_threads():
            probe.create_inference_session()
        yield probe.infer_session, sorted(probe.tensors_to_calibrate)


def _activations(
    session: onnxruntime.InferenceSession, names: list[str], batches: Sequence[dict[str, torch.Tensor]]
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the values of tensors for each pair, without empty tensors."""
    inputs = [node.name for node in session.get_inputs()]
    for batch in batches:
        for row, mask in enumerate(batch["attention_mask"].bool()):
            values = session.run(names, {name: batch[name][row, mask][None].numpy() for name in inputs})
            yield {name: value for name, value in zip(names, values, strict=True) if value.size}
