"""The step that brings the scores of the student and of every artifact to the teacher's scale."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.graph_files import record_external_data
from hfcompress.models.layout import ONNX_FP32, OPENVINO_FP32
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.models.modular import nonlinear_score, score_layer
from hfcompress.models.score_head import rescale_score
from hfcompress.quantization.artifacts import check_export
from hfcompress.quantization.rescale import rescale_file
from hfcompress.rankers.base import BatchedRanker
from hfcompress.rankers.load import activation_name
from hfcompress.rankers.onnxruntime import OnnxRuntimeRanker
from hfcompress.rankers.openvino import OpenVinoRanker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.report.fidelity import ScoreMap
from hfcompress.steps.context import RunContext
from hfcompress.steps.evaluate import candidates_of
from hfcompress.steps.fidelity import FIT_QUERIES, fit_maps, fit_split, record_maps
from hfcompress.steps.inputs import calibration_pairs
from hfcompress.steps.workspace import StepFolder, StepModel

logger = logging.getLogger(__name__)

CHECKPOINT = "model.safetensors"  # the path of the student in PyTorch, as reports name it
CHECKED_PAIRS = 16


def calibrate(context: RunContext, teacher: StepModel, checkpoint: StepFolder) -> StepFolder:
    """Fit the logits of the student and of every quantized artifact to the teacher's, and fold the maps into the files.

    Args:
        context: The run.
        teacher: The teacher.
        checkpoint: Folder with the student and its graphs.

    Returns:
        A folder with the same files, whose scores are calibrated. It is `checkpoint` if the recipe turns calibration
        off, or there are neither dev nor train pairs.
    """
    split = fit_split(context.data)
    if not context.recipe.calibrate or split is None:
        return checkpoint

    def work(folder: Path, partial: Path) -> None:
        candidates = candidates_of(context.recipe, teacher.name, checkpoint.path, str(context.device))
        maps = fit_maps(context, candidates)
        shutil.copytree(checkpoint.path, folder, dirs_exist_ok=True)
        record_maps(folder, fold_maps(folder, maps, context.max_length, calibration_pairs(context.data, CHECKED_PAIRS)))

    inputs = [teacher.fingerprint, checkpoint.fingerprint, FIT_QUERIES]
    what = f"fit the scores of every artifact to the teacher's on {split} pairs"
    return context.workspace.step("calibrate", inputs, work, what)


def fold_maps(
    folder: Path, maps: Mapping[str, ScoreMap], max_length: int, pairs: list[tuple[str, str]]
) -> dict[str, ScoreMap]:
    """Fold maps into the files of a checkpoint, in place; its fp32 graphs get the map of the checkpoint.

    Args:
        folder: The checkpoint with its graphs.
        maps: Maps by the path of the artifact.
        max_length: Longest input in tokens.
        pairs: Pairs on which the fp32 graphs are compared with PyTorch.

    Returns:
        The maps, marked as folded, or with the reason why they cannot be.

    Raises:
        ModelError: The scores of an fp32 graph differ from those of PyTorch.
    """
    model = load_model(str(folder), dtype="float32")
    if fault := nonlinear_score(model.config):
        reason = f"the score is no linear function of the head's last features ({fault})"
        logger.warning(f"calibrate: nothing is changed: {reason}")
        return {path: found.model_copy(update={"reason": reason}) for path, found in maps.items()}
    layer = score_layer(model)
    own = maps.get(CHECKPOINT)
    scale, shift = (own.scale, own.shift) if own else (1.0, 0.0)
    tokenizer = load_tokenizer(str(folder), max_length)
    save_checkpoint(folder, rescale_score(model, scale, shift), tokenizer, activation_name(model.config), max_length)
    record_external_data(folder)
    reference = TorchRanker(model, tokenizer)
    for graph in (folder / ONNX_FP32, folder / OPENVINO_FP32):
        if graph.is_file() and own:
            rescale_file(graph, scale, shift, layer)
            check_export(_ranker(graph, tokenizer), reference, pairs)
    for path, found in maps.items():
        if path != CHECKPOINT:
            rescale_file(folder / path, found.scale, found.shift, layer)
    return {path: found.model_copy(update={"folded": True}) for path, found in maps.items()}


def _ranker(graph: Path, tokenizer: PreTrainedTokenizerFast) -> BatchedRanker:
    return OnnxRuntimeRanker(graph, tokenizer) if graph.suffix == ".onnx" else OpenVinoRanker(graph, tokenizer)
