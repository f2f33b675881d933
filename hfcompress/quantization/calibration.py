"""Activation ranges for static int8 that cut outliers off, from pairs of any length in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir
import onnxruntime
import torch
from onnxruntime.quantization.calibrate import HistogramCalibrater
from scipy.stats import entropy

BINS = 2048  # of magnitudes, for each tensor
LEVELS = 128  # that 8 bits give to magnitudes
STEP = 16  # bins between the cuts that `entropy` tries

Range = tuple[float, float]


def clipped_ranges(
    graph: onnx_ir.Model,
    batches: Sequence[dict[str, torch.Tensor]],
    operators: Sequence[str],
    method: str,
    percentile: float = 99.999,
) -> dict[str, Range]:
    """Measure the ranges of what some operators take in and put out, without outliers.

    Pairs go through the graph one by one and without padding, which would count as values, twice: for the range of
    each tensor, then for a histogram of its magnitudes with a fixed number of bins. Memory is that of one pair's
    activations; ONNX Runtime's own histograms keep those of all batches, which then need one shape.

    Args:
        graph: An exported graph in fp32.
        batches: Batches of model inputs, of any size and length.
        operators: Types of the operators.
        method: `percentile` cuts where that share of magnitudes is in range; `entropy` where the histogram loses least
            information in 8 bits (Migacz, 8-bit inference with TensorRT, GTC 2017).
        percentile: Percentage for `percentile`.

    Returns:
        Least and largest value by tensor.
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
    """How many of the lowest bins hold a percentage of all values.

    Args:
        counts: Histogram of magnitudes, shape `(bins,)`.
        percentile: The percentage.
    """
    return int(np.searchsorted(np.cumsum(counts), counts.sum() * percentile / 100)) + 1


def entropy_cut(counts: np.ndarray, levels: int = LEVELS, step: int = STEP) -> int:
    """How many of the lowest bins to keep so that the histogram in few levels diverges least from the whole one.

    For each cut, the values beyond it are put into the last bin that is kept (P), the bins kept are merged into levels
    and spread out again over those that had values (Q); the Kullback-Leibler divergence of P from Q is what is lost.

    Args:
        counts: Histogram of magnitudes, shape `(bins,)`.
        levels: Levels that quantization gives to magnitudes.
        step: Bins between the cuts that are tried.
    """
    counts = counts.astype(np.float64)
    counts[0] = counts[1]  # zeros stay zero whatever the scale, and would outweigh all else
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
    # The last of equals: it cuts least off.
    return cuts[len(cuts) - 1 - int(np.argmin(losses[::-1]))]


@contextmanager
def _probed(graph: onnx_ir.Model, operators: Sequence[str]) -> Iterator[tuple[onnxruntime.InferenceSession, list[str]]]:
    """A session that also puts out what ONNX Runtime would quantize, and the names of that."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx_ir.save(graph, path, external_data="model.onnx.data")
        probe = HistogramCalibrater(path, list(operators), str(path.with_name("probe.onnx")), True)
        probe.augment_graph()
        probe.create_inference_session()
        yield probe.infer_session, sorted(probe.tensors_to_calibrate)


def _activations(
    session: onnxruntime.InferenceSession, names: list[str], batches: Sequence[dict[str, torch.Tensor]]
) -> Iterator[dict[str, np.ndarray]]:
    """Values of the tensors named, pair by pair; those without elements are left out."""
    inputs = [node.name for node in session.get_inputs()]
    for batch in batches:
        for row, mask in enumerate(batch["attention_mask"].bool()):
            values = session.run(names, {name: batch[name][row, mask][None].numpy() for name in inputs})
            yield {name: value for name, value in zip(names, values, strict=True) if value.size}
