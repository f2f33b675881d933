"""Write all artifacts of a model: fp32 exports, which are checked against PyTorch, int8 graphs, and packed weights."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.errors import DataError, ModelError, RecipeError
from hfcompress.models.layout import ONNX_FP32, ONNX_INT8, ONNX_INT8_STATIC, OPENVINO_FP32, OPENVINO_INT8
from hfcompress.models.prompts import encode_pairs
from hfcompress.models.size import ModelSize
from hfcompress.models.wrappers import unwrapped
from hfcompress.quantization import onnxruntime as onnx_backend
from hfcompress.quantization import openvino as openvino_backend
from hfcompress.quantization.config import (
    MixedPrecisionConfig,
    QuantizationConfig,
    WeightQuantizationConfig,
    require_calibration,
)
from hfcompress.quantization.mixed_precision import choose_fp32_modules, describe, ranking_lists
from hfcompress.quantization.weights import packed_file, save_packed
from hfcompress.rankers.base import BatchedRanker, Pair
from hfcompress.rankers.onnxruntime import OnnxRuntimeRanker
from hfcompress.rankers.openvino import OpenVinoRanker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.utils.memory import MemoryEstimate
from hfcompress.utils.progress import progress_bar

logger = logging.getLogger(__name__)

EXPORT_TOLERANCE = 1e-4
CALIBRATION_BATCH = 8
CHECKED_PAIRS = 16
# Copies of the weights at the peak, the model included: the graph, its file, what the runtime opens to check it, and
# what the quantizer reads; and bytes of exporters and runtimes. `scripts/large_models.py` shows the actual peaks.
COPIES, LIBRARIES = 5, 800_000_000
# Exports are checked on these if no texts are given. Their lengths differ, so that padding is checked too.
STAND_IN_PAIRS = (
    ("sort a list in place", "list.sort sorts the list in place, using only comparisons between items."),
    ("sort a list in place", "A tuple cannot be changed."),
    ("what is the capital of France", "Paris is the capital and largest city of France, on the river Seine."),
    ("how tall is Mont Blanc", "4,806 m"),
)


def graph_file(config: QuantizationConfig) -> str:
    """Path in the repository of the artifact of a config."""
    if isinstance(config, WeightQuantizationConfig):
        return packed_file(config)
    if config.runtime == "openvino":
        return OPENVINO_INT8
    return ONNX_INT8 if config.mode == "dynamic" else ONNX_INT8_STATIC


def write_graphs(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    configs: Sequence[QuantizationConfig],
    *,
    pairs: Sequence[Pair],
    ranking_pairs: Sequence[Pair] = (),
    first_token: bool = True,
    progress: bool = True,
) -> dict[str, QuantizationConfig]:
    """Export a model once for each runtime in `configs`, and write the artifact of each config.

    Args:
        folder: Repository to write into.
        model: The model.
        tokenizer: Its tokenizer, with `model_max_length` set.
        configs: Settings of the artifacts.
        pairs: Pairs for calibration, and for the check of the exports.
        ranking_pairs: Pairs with several documents of each query, for mixed precision; by default `pairs`.
        first_token: Compute the last layer for the first token only, if the model's head reads nothing else.
        progress: Show a progress bar.

    Returns:
        Configs of the int8 graphs and packed files by path in the repository, with the layers that mixed precision
        chose.

    Raises:
        DataError: There are no pairs for static int8, or no lists for mixed precision.
        MissingExtraError: OpenVINO is not installed, and a config requires it.
        ModelError: The scores of an export differ from those of PyTorch.
        RecipeError: Two configs are for the same file.
    """
    check_configs(configs, pairs, ranking_pairs)
    model = unwrapped(model)
    calibration, lists = calibration_batches(tokenizer, pairs), ranking_pairs or pairs
    reference = TorchRanker(model, tokenizer)
    written: dict[str, QuantizationConfig] = {}
    for_onnx = [config for config in configs if config.runtime == "onnxruntime"]
    for_openvino = [config for config in configs if config.runtime == "openvino"]
    total = bool(for_onnx) + bool(for_openvino) + len(configs)
    with progress_bar(total=total, desc="exporting", unit="graph", disable=not progress, leave=False) as bar:

        def record(config: QuantizationConfig) -> None:
            written[graph_file(config)] = config
            bar.update()

        def write_onnx() -> None:
            graph = onnx_backend.export_onnx(model, tokenizer, first_token)
            path = onnx_backend.save_onnx(graph, folder / ONNX_FP32)
            check_export(OnnxRuntimeRanker(path, tokenizer), reference, pairs)
            bar.update()
            for config in for_onnx:
                if isinstance(config, MixedPrecisionConfig):
                    config, quantized = choose_fp32_modules(
                        model, tokenizer, graph, config, calibration=calibration, pairs=lists, progress=progress
                    )
                    logger.info(f"int8: {describe(config)}")
                else:
                    quantized = onnx_backend.quantize(graph, config, calibration)
                onnx_backend.save_onnx(quantized, folder / graph_file(config))
                record(config)

        def write_openvino() -> None:
            graph = openvino_backend.export_openvino(model, tokenizer, first_token)
            path = openvino_backend.save_openvino(graph, folder / OPENVINO_FP32)
            check_export(OpenVinoRanker(path, tokenizer), reference, pairs)
            bar.update()
            for config in for_openvino:
                quantized = openvino_backend.quantize(graph, config, calibration)
                openvino_backend.save_openvino(quantized, folder / graph_file(config))
                record(config)

        # Functions, since the graphs of one runtime must not stay in memory while those of the other are made.
        if for_onnx:
            write_onnx()
        if for_openvino:
            write_openvino()
        for config in configs:
            if isinstance(config, WeightQuantizationConfig):
                save_packed(model, config, folder)
                record(config)
    return written


def export_memory(size: ModelSize, certain: ModelSize | None = None) -> MemoryEstimate:
    """Estimate the memory of `write_graphs`, which makes the graphs one after the other.

    Args:
        size: The model to export.
        certain: The least size that it can have, if it is to be pruned; by default `size`.
    """
    return MemoryEstimate(
        "Export with quantization",
        least=2 * (certain or size).weights,
        peak=COPIES * size.weights + LIBRARIES,
        counted="the weights in the model and in its graph",
        remedy="prune the vocabulary or more of the encoder, or export on a machine with more memory",
    )


def have_graphs(configs: Iterable[QuantizationConfig]) -> bool:
    """Whether an artifact is a graph, for which the model is exported; packed weights are not."""
    return any(config.runtime != "torch" for config in configs)


def check_configs(
    configs: Sequence[QuantizationConfig], pairs: Sequence[Pair], ranking_pairs: Sequence[Pair] = ()
) -> None:
    """Check configs and their calibration data before the artifacts are written.

    Args:
        configs: Settings of the artifacts.
        pairs: Pairs for calibration.
        ranking_pairs: Pairs for mixed precision; by default `pairs`.

    Raises:
        DataError: There are no pairs for static int8, no query has two documents for mixed precision, or a pair is not
            two texts.
        MissingExtraError: OpenVINO is not installed, and a config requires it.
        RecipeError: Two configs are for the same file.
    """
    files = [graph_file(config) for config in configs]
    if twice := sorted({file for file in files if files.count(file) > 1}):
        raise RecipeError(
            "Two quantization configs are for the same file",
            value=twice,
            expected="at most one dynamic and one static config for ONNX Runtime, one for OpenVINO, and one for each "
            "number of bits of packed weights",
            remedy="remove one, or quantize into another folder",
        )
    for config in configs:
        require_calibration(config, pairs)
        if isinstance(config, MixedPrecisionConfig):
            ranking_lists(ranking_pairs or pairs)
        if config.runtime == "openvino":
            openvino_backend.require_openvino()
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise DataError(
                "Invalid calibration pair", value=pair, expected="two texts: query and document", remedy="correct it"
            )


def calibration_batches(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[Pair]) -> list[dict]:
    """Batches of tokenized pairs, padded to the longest pair of each batch."""
    parts = (pairs[start : start + CALIBRATION_BATCH] for start in range(0, len(pairs), CALIBRATION_BATCH))
    texts = (map(list, zip(*part, strict=True)) for part in parts)
    return [dict(encode_pairs(tokenizer, *both, truncation=True, padding=True, return_tensors="pt")) for both in texts]


def check_export(exported: BatchedRanker, reference: BatchedRanker, pairs: Sequence[Pair]) -> None:
    """Check that an fp32 graph has the scores of the model in PyTorch.

    Args:
        exported: The graph.
        reference: The model.
        pairs: Pairs, of which the first ones are scored; without any, `STAND_IN_PAIRS` are.

    Raises:
        ModelError: The scores differ by more than `EXPORT_TOLERANCE`.
    """
    sample = list(pairs[:CHECKED_PAIRS] or STAND_IN_PAIRS)
    difference = float(np.abs(exported.score(sample) - reference.score(sample)).max(initial=0.0))
    if not difference <= EXPORT_TOLERANCE:
        raise ModelError(
            f"The scores of the {exported.name} export differ from those of PyTorch",
            value=f"largest difference {difference:.2g} over {len(sample)} pairs",
            expected=f"at most {EXPORT_TOLERANCE:g}",
            remedy="report this model family, and remove this runtime from quantize.artifacts meanwhile",
        )
    logger.info(f"int8: {exported.name} fp32 export within {difference:.1e} of PyTorch")
