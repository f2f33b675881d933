"""Faster ways to compute the scores of a model in PyTorch fp32: its last layer for one token, or an fp32 graph."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

import numpy as np

from hfcompress.errors import HfCompressError
from hfcompress.models.layout import ONNX_FP32, OPENVINO_FP32
from hfcompress.quantization import onnxruntime as onnx_backend
from hfcompress.quantization import openvino as openvino_backend
from hfcompress.quantization.artifacts import EXPORT_TOLERANCE
from hfcompress.quantization.first_token import first_token_only
from hfcompress.rankers.base import BatchedRanker, Pair, RankerOptions
from hfcompress.rankers.onnxruntime import OnnxRuntimeRanker
from hfcompress.rankers.openvino import OpenVinoRanker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.utils.json_files import one_line

logger = logging.getLogger(__name__)

# What tracing, conversion and writing of a graph raise for a model that a runtime does not support.
EXPORT_FAULTS = (
    HfCompressError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ImportError, OSError,
)  # fmt: skip


class FirstTokenRanker(TorchRanker):
    """A `TorchRanker` that computes the last layer for the first token only, while it scores."""

    def __init__(self, reference: TorchRanker):
        super().__init__(
            reference.model,
            reference.tokenizer,
            options=options_of(reference),
            name="PyTorch with one token in the last layer",
        )
        self._one_call = Lock()  # the block below changes the model

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Raw logits, shape `(len(pairs),)`, float32; empty for no pairs."""
        with self._one_call, first_token_only(self.model):
            return super().score(pairs)


@dataclass(frozen=True)
class ExactSample:
    """Scores of a few pairs in PyTorch, by which other rankers of the same model are judged.

    Attributes:
        pairs: The pairs.
        scores: Their scores.
        seconds: The time that PyTorch took.
    """

    pairs: Sequence[Pair]
    scores: np.ndarray
    seconds: float

    @classmethod
    def of(cls, ranker: BatchedRanker, pairs: Sequence[Pair]) -> ExactSample:
        """Score pairs with a ranker."""
        start = time.perf_counter()
        scores = ranker.score(pairs)
        return cls(pairs, scores, time.perf_counter() - start)

    def faster(self, ranker: BatchedRanker, seconds: float, repeats: int = 1) -> float | None:
        """The time of a ranker for these pairs, if it agrees with PyTorch and is faster.

        Args:
            ranker: The ranker.
            seconds: The time that it has to beat.
            repeats: Number of times to score; the shortest time counts.

        Returns:
            Seconds; None if the ranker takes longer, or a score differs by more than `EXPORT_TOLERANCE`.
        """
        found = [ExactSample.of(ranker, self.pairs) for _ in range(repeats)]
        best, difference = min(each.seconds for each in found), float(np.abs(found[0].scores - self.scores).max())
        what = f"{ranker.name} computes {self.seconds / best:.2f}x as fast as PyTorch, within {difference:.1e} of it"
        if not difference <= EXPORT_TOLERANCE:
            logger.info(f"scores: PyTorch goes on, as {ranker.name} differs from it by {difference:.1e}")
        elif best < seconds:
            logger.info(f"scores: {what}")
            return best
        return None


def options_of(ranker: BatchedRanker) -> RankerOptions:
    """Threads, token budget and setting for long documents of a ranker, on the CPU."""
    return RankerOptions(ranker.threads, ranker.batch_tokens, long_documents=ranker.long_documents)


def fp32_graph(folder: Path) -> Path | None:
    """The fp32 graph of a compressed folder whose runtime is installed; OpenVINO's, which is faster, comes first."""
    graphs = {"openvino": folder / OPENVINO_FP32, "onnxruntime": folder / ONNX_FP32}
    return next((path for engine, path in graphs.items() if path.is_file() and find_spec(engine)), None)


def faster_graph(
    reference: TorchRanker, sample: ExactSample, seconds: float, graph: Path | None, folder: Path
) -> BatchedRanker | None:
    """An fp32 graph of a model that agrees with PyTorch and is faster.

    Args:
        reference: The model in PyTorch.
        sample: What it is compared on.
        seconds: The time for the sample that it has to beat.
        graph: The graph; None exports one, to OpenVINO where it is installed, else to ONNX.
        folder: Where an exported graph is written; it must exist as long as the ranker is used.

    Returns:
        A ranker; None if the model cannot be exported, scores differ, or PyTorch is as fast.
    """
    try:
        ranker = _opened(reference, graph or _exported(reference, folder))
        return ranker if sample.faster(ranker, seconds, repeats=2) else None  # kernels are compiled in the first
    except EXPORT_FAULTS as error:
        logger.info(f"scores: PyTorch goes on, as there is no graph of this model: {one_line(error)}")
        return None


def _exported(reference: TorchRanker, folder: Path) -> Path:
    model, tokenizer = reference.model, reference.tokenizer
    if openvino_backend.is_available():
        return openvino_backend.save_openvino(openvino_backend.export_openvino(model, tokenizer), folder / "model.xml")
    return onnx_backend.save_onnx(onnx_backend.export_onnx(model, tokenizer), folder / "model.onnx")


def _opened(reference: TorchRanker, graph: Path) -> BatchedRanker:
    if graph.suffix == ".xml":
        return OpenVinoRanker(graph, reference.tokenizer, options=options_of(reference), name="OpenVINO fp32")
    return OnnxRuntimeRanker(graph, reference.tokenizer, options=options_of(reference), name="ONNX Runtime fp32")
