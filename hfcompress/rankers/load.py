"""From a folder or a name to a ranker."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.special import expit
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from hfcompress.errors import ModelError
from hfcompress.evaluation.report import REPORT_FILE, RunReport
from hfcompress.layout import ONNX_INT8, ONNX_INT8_STATIC, OPENVINO_INT8
from hfcompress.models import load_config, load_model, load_tokenizer, position_limit
from hfcompress.rankers.base import BatchedRanker, RankerOptions
from hfcompress.rankers.onnxruntime import OnnxRuntimeRanker
from hfcompress.rankers.openvino import OpenVinoRanker
from hfcompress.rankers.pytorch import TorchRanker

Runtime = Literal["torch", "onnxruntime", "openvino"]

GRAPHS: tuple[tuple[Runtime, str], ...] = (
    ("openvino", OPENVINO_INT8),
    ("onnxruntime", ONNX_INT8),
    ("onnxruntime", ONNX_INT8_STATIC),
)

FILE_RUNTIMES: dict[str, Runtime] = {".onnx": "onnxruntime", ".xml": "openvino", ".safetensors": "torch"}

# By name only, and nothing else: a checkpoint must not be able to name code to run.
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "torch.nn.modules.linear.Identity": lambda logits: logits,
    "torch.nn.modules.activation.Sigmoid": expit,
}
DEFAULT_ACTIVATION = "torch.nn.modules.activation.Sigmoid"


def activation_name(config: PretrainedConfig) -> str:
    """Activation that a cross-encoder checkpoint asks for; sentence-transformers' default is the sigmoid."""
    settings = getattr(config, "sentence_transformers", None) or {}
    old = getattr(config, "sbert_ce_default_activation_function", None)
    return settings.get("activation_fn") or old or DEFAULT_ACTIVATION


def activation_of(config: PretrainedConfig) -> Callable[[np.ndarray], np.ndarray]:
    """The activation function of a checkpoint.

    Raises:
        ModelError: The checkpoint names another activation than identity and sigmoid.
    """
    name = activation_name(config).replace("torch.nn.Identity", "torch.nn.modules.linear.Identity")
    if name not in ACTIVATIONS:
        raise ModelError(
            "The checkpoint asks for an activation function that is not allowed",
            value=name,
            expected=" or ".join(ACTIVATIONS),
            remedy="name one of these in config.json under sentence_transformers.activation_fn",
        )
    return ACTIVATIONS[name]


def ranking_tokenizer(name: str, config: PretrainedConfig, max_length: int | None = None) -> PreTrainedTokenizerBase:
    """Tokenizer whose `model_max_length` fits the model's positions.

    Raises:
        ModelError: `max_length` is longer than the model's positions.
    """
    tokenizer = load_tokenizer(name)
    limit = position_limit(config)
    if max_length is not None and max_length > limit:
        raise ModelError(
            "max_length is longer than the model's positions",
            value=max_length,
            expected=f"at most {limit} tokens",
            remedy=f"set max_length to {limit} or less",
        )
    tokenizer.model_max_length = min(max_length or tokenizer.model_max_length, limit)
    return tokenizer


def load_ranker(
    name: str | Path,
    runtime: Runtime | None = None,
    file: str | None = None,
    max_length: int | None = None,
    options: RankerOptions | None = None,
) -> BatchedRanker:
    """Load a ranker.

    Args:
        name: A folder written by hfcompress, any other cross-encoder's folder, or a Hub id.
        runtime: Where to run; by default what runs `file`, else where `default_graph` runs, else PyTorch.
        file: File in the folder: an ONNX or OpenVINO graph, or packed weights; by default that of `default_graph`.
        max_length: Longest input in tokens; by default the tokenizer's.
        options: How to use the machine.

    Raises:
        ModelError: The model does not exist, or does not give exactly one score.
        MissingExtraError: The runtime asked for is not installed.
    """
    name = str(name)
    if runtime is None and file is not None:
        runtime = FILE_RUNTIMES.get(Path(file).suffix)
    graph = default_graph(Path(name), runtime)
    if runtime is None:
        runtime = graph[0] if graph else "torch"
    config = load_config(name)
    tokenizer = ranking_tokenizer(name, config, max_length)
    activation = activation_of(config)
    if runtime == "torch":
        return TorchRanker(load_model(name, dtype="float32", file=file), tokenizer, activation, options)
    path = Path(name, file or (graph[1] if graph else ONNX_INT8 if runtime == "onnxruntime" else OPENVINO_INT8))
    if not path.is_file():
        ending = "*.onnx" if runtime == "onnxruntime" else "*.xml"
        others = sorted(str(other.relative_to(name)) for other in Path(name).rglob(ending))
        raise ModelError(
            f"The folder has no graph for {runtime}{' under this name' if others else ''}",
            value=str(path),
            expected="a folder written by `hfcompress run` with that runtime among its artifacts",
            remedy=f"name one of its files: {', '.join(others)}" if others else "use runtime='torch'",
        )
    if runtime == "openvino" and not path.with_suffix(".bin").is_file():
        raise ModelError(
            "The weights of the OpenVINO graph are missing",
            value=str(path),
            expected=f"{path.with_suffix('.bin').name} beside it",
            remedy="copy both files together",
        )
    if runtime == "onnxruntime":
        return OnnxRuntimeRanker(path, tokenizer, activation, options)
    return OpenVinoRanker(path, tokenizer, activation, options)


def default_graph(folder: Path, runtime: Runtime | None = None) -> tuple[Runtime, str] | None:
    """The int8 graph of a folder to use where none is named.

    The fastest by the folder's own `report.json`; without a report OpenVINO's, then ONNX Runtime's.

    Args:
        folder: A folder written by hfcompress, or anything else.
        runtime: Only graphs for this runtime; by default those whose runtime is installed.

    Returns:
        Runtime and path in the folder; None where there is no such graph.
    """
    found = [
        (engine, path)
        for engine, path in GRAPHS
        if (folder / path).is_file() and (engine == runtime or (runtime is None and find_spec(engine)))
    ]
    if (folder / REPORT_FILE).is_file():
        speed = {artifact.path: artifact.speedup for artifact in RunReport.load(folder).artifacts}
        found.sort(key=lambda graph: -speed.get(graph[1], 0.0))
    return found[0] if found else None
