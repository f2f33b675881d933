"""Write every artefact of a run: exports in fp32, checked against PyTorch, int8 of each kind, packed weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.errors import DataError, ModelError, RecipeError
from hfcompress.layout import ONNX_FP32, ONNX_INT8, ONNX_INT8_STATIC, OPENVINO_FP32, OPENVINO_INT8
from hfcompress.progress import progress_bar
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
from hfcompress.surgery import unwrapped

EXPORT_TOLERANCE = 1e-4
CALIBRATION_BATCH = 8
CHECKED_PAIRS = 16
# Exports are checked on these where no texts are given: of several lengths, so that padding counts.
STAND_IN_PAIRS = (
    ("sort a list in place", "list.sort sorts the list in place, using only comparisons between items."),
    ("sort a list in place", "A tuple cannot be changed."),
    ("what is the capital of France", "Paris is the capital and largest city of France, on the river Seine."),
    ("how tall is Mont Blanc", "4,806 m"),
)


def graph_file(config: QuantizationConfig) -> str:
    """Path in the repository of the file that a config makes."""
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
    pairs: Sequence[Pair],
    say: Callable[[str], None],
    progress: bool = True,
    first_token: bool = True,
    ranking_pairs: Sequence[Pair] = (),
) -> dict[str, QuantizationConfig]:
    """Export a model once for each runtime in `configs`, quantize each export as often as asked for, and pack weights.

    Args:
        folder: The repository to write into.
        model: The model.
        tokenizer: Its tokenizer, with `model_max_length` set.
        configs: What to make.
        pairs: Real pairs for calibration, and for the check of the exports.
        say: Called with a line for the user.
        progress: Show a progress bar.
        first_token: Compute the last layer for the first token only, where the model's head reads nothing else.
        ranking_pairs: Pairs with several documents of each query, for mixed precision; by default `pairs`.

    Returns:
        Path in the repository of every int8 graph and packed file, with its config and what was chosen for it.

    Raises:
        DataError: Static int8 is asked for, and there are no pairs.
        MissingExtraError: OpenVINO is asked for and not installed.
        ModelError: An export gives other scores than PyTorch.
        RecipeError: Two settings are for one file.
    """
    check_configs(configs, pairs, ranking_pairs)
    model = unwrapped(model)
    calibration = calibration_batches(tokenizer, pairs)
    reference = TorchRanker(model, tokenizer, lambda logits: logits)
    written: dict[str, QuantizationConfig] = {}
    by_runtime = {
        runtime: chosen
        for runtime in ("onnxruntime", "openvino")
        if (chosen := [config for config in configs if config.runtime == runtime])
    }
    total = len(by_runtime) + len(configs)
    with progress_bar(total=total, desc="exporting", unit="graph", disable=not progress, leave=False) as bar:
        if "onnxruntime" in by_runtime:
            graph = onnx_backend.export_onnx(model, tokenizer, first_token)
            path = onnx_backend.save_onnx(graph, folder / ONNX_FP32)
            _check(OnnxRuntimeRanker(path, tokenizer, lambda logits: logits), reference, pairs, say)
            bar.update()
            for config in by_runtime["onnxruntime"]:
                if isinstance(config, MixedPrecisionConfig):
                    config, quantized = choose_fp32_modules(
                        model, tokenizer, graph, config, calibration, ranking_pairs or pairs, progress
                    )
                    say(f"int8: {describe(config)}")
                else:
                    quantized = onnx_backend.quantize(graph, config, calibration)
                onnx_backend.save_onnx(quantized, folder / graph_file(config))
                written[graph_file(config)] = config
                bar.update()
        if "openvino" in by_runtime:
            graph = openvino_backend.export_openvino(model, tokenizer, first_token)
            path = openvino_backend.save_openvino(graph, folder / OPENVINO_FP32)
            _check(OpenVinoRanker(path, tokenizer, lambda logits: logits), reference, pairs, say)
            bar.update()
            for config in by_runtime["openvino"]:
                quantized = openvino_backend.quantize(graph, config, calibration)
                openvino_backend.save_openvino(quantized, folder / graph_file(config))
                written[graph_file(config)] = config
                bar.update()
        for config in configs:
            if isinstance(config, WeightQuantizationConfig):
                save_packed(model, config, folder)
                written[graph_file(config)] = config
                bar.update()
    return written


def check_configs(
    configs: Sequence[QuantizationConfig], pairs: Sequence[Pair], ranking_pairs: Sequence[Pair] = ()
) -> None:
    """Check that graphs can be made by some settings, before long work starts.

    Args:
        configs: The settings.
        pairs: Texts for calibration.
        ranking_pairs: Texts for mixed precision; by default `pairs`.

    Raises:
        DataError: Static int8 is asked for and there are no pairs, or something else is among them; or mixed precision
            is, and no query has two documents.
        MissingExtraError: OpenVINO is asked for and not installed.
        RecipeError: Two settings are for one file.
    """
    files = [graph_file(config) for config in configs]
    if twice := sorted({file for file in files if files.count(file) > 1}):
        raise RecipeError(
            "Two settings of quantization are for one file",
            value=twice,
            expected="at most one dynamic and one static config for ONNX Runtime, one for OpenVINO, and one for each "
            "number of bits of packed weights",
            remedy="leave one out, or quantize into another folder",
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
                "A calibration pair is none", value=pair, expected="two texts: query and document", remedy="correct it"
            )


def calibration_batches(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[Pair]) -> list[dict]:
    """Batches of model inputs, padded within a batch."""
    return [
        dict(
            tokenizer(
                [query for query, _ in part],
                [document for _, document in part],
                truncation=True,
                padding=True,
                return_tensors="pt",
            )
        )
        for part in (pairs[start : start + CALIBRATION_BATCH] for start in range(0, len(pairs), CALIBRATION_BATCH))
    ]


def _check(
    exported: BatchedRanker, reference: BatchedRanker, pairs: Sequence[Pair], say: Callable[[str], None]
) -> None:
    sample = list(pairs[:CHECKED_PAIRS] or STAND_IN_PAIRS)
    difference = float(np.abs(exported.score(sample) - reference.score(sample)).max(initial=0.0))
    if not difference <= EXPORT_TOLERANCE:
        raise ModelError(
            f"The {exported.name} export gives other scores than PyTorch",
            value=f"largest difference {difference:.2g} over {len(sample)} pairs",
            expected=f"at most {EXPORT_TOLERANCE:g}",
            remedy="report this model family; meanwhile leave this runtime out of quantize.artifacts",
        )
    say(f"int8: {exported.name} fp32 export within {difference:.1e} of PyTorch")
