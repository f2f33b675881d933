"""Load a ranker from a folder or the Hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from hfcompress.data.score_text import score_text_of
from hfcompress.errors import DeviceError, ModelError
from hfcompress.models.layout import ONNX_INT8, ONNX_INT8_STATIC, OPENVINO_INT8
from hfcompress.models.load import load_config, load_model, load_tokenizer
from hfcompress.models.positions import check_max_length, position_limit
from hfcompress.models.sentence_transformers import ACTIVATIONS, full_activation_name
from hfcompress.rankers.base import BatchedRanker, RankerOptions, raw_logits
from hfcompress.rankers.onnxruntime import CUDA_PROVIDER, OnnxRuntimeRanker
from hfcompress.rankers.openvino import OpenVinoRanker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.rankers.reload import reloadable
from hfcompress.recipe import LongDocuments
from hfcompress.recipe.long_documents import long_documents_of
from hfcompress.recipe.teacher import ScoreLabel
from hfcompress.report.report import REPORT_FILE, RunReport
from hfcompress.utils.device import DTYPES, torch_device

Runtime = Literal["torch", "onnxruntime", "openvino"]

GRAPHS: tuple[tuple[Runtime, str], ...] = (
    ("openvino", OPENVINO_INT8),
    ("onnxruntime", ONNX_INT8),
    ("onnxruntime", ONNX_INT8_STATIC),
)

FILE_RUNTIMES: dict[str, Runtime] = {".onnx": "onnxruntime", ".xml": "openvino", ".safetensors": "torch"}


def activation_name(config: PretrainedConfig) -> str:
    """Full name of the activation of a cross-encoder, by the precedence of sentence-transformers.

    The name in `config_sentence_transformers.json`, which `load_config` puts into the config, comes first, then
    `sentence_transformers.activation_fn` in `config.json`, then the key of earlier versions,
    `sbert_ce_default_activation_function`. The default is the sigmoid.

    Args:
        config: Config from `load_config` or of a model from `load_model`.

    Raises:
        ModelError: A name in one of these places is not in `ACTIVATIONS`, or the settings in the config are no object.
    """
    settings = getattr(config, "sentence_transformers", None) or {}
    if not isinstance(settings, Mapping):
        raise ModelError(
            "The entry sentence_transformers of config.json, which names the activation function, is invalid",
            value=settings,
            expected="a JSON object with activation_fn",
            remedy="correct it, or remove it for the sigmoid",
        )
    former = _full_name(getattr(config, "sbert_ce_default_activation_function", None))
    if "activation_fn" in settings:
        return _full_name(settings["activation_fn"])
    return former


def activation_of(config: PretrainedConfig) -> Callable[[np.ndarray], np.ndarray]:
    """The activation function of a checkpoint; arguments and errors are those of `activation_name`."""
    return activation_by_name(activation_name(config))


def activation_by_name(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The activation function of a full name, a key of `ACTIVATIONS`."""
    kind = ACTIVATIONS[name]
    return raw_logits if kind is nn.Identity else partial(_activated, kind)


def _activated(kind: type[nn.Module], logits: np.ndarray) -> np.ndarray:
    scores: np.ndarray = kind()(torch.tensor(logits)).numpy()
    return scores


def _full_name(name: object) -> str:
    """Full name of an activation, by its full or short name or None for the default."""
    if name is None:
        return next(iter(ACTIVATIONS))
    full = full_activation_name(name)
    if full is None:
        raise ModelError(
            "The checkpoint names an activation function that is not allowed",
            value=name,
            expected=" or ".join(ACTIVATIONS),
            remedy="name one of these under activation_fn in config_sentence_transformers.json, if there is this file, "
            "or in config.json under sentence_transformers",
        )
    return full


def ranking_tokenizer(name: str, config: PretrainedConfig, max_length: int | None = None) -> PreTrainedTokenizerFast:
    """Load a tokenizer whose `model_max_length` fits the positions of the model.

    Raises:
        ModelError: `max_length` exceeds the positions of the model.
    """
    tokenizer = load_tokenizer(name)
    check_max_length(max_length, config)
    tokenizer.model_max_length = min(max_length or tokenizer.model_max_length, position_limit(config))
    return tokenizer


@reloadable
def load_ranker(
    name: str | Path,
    runtime: Runtime | None = None,
    file: str | None = None,
    max_length: int | None = None,
    options: RankerOptions | None = None,
    activation: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    cache_bytes: int | None = None,
    score: ScoreLabel | None = None,
    long_documents: LongDocuments | Mapping[str, Any] | str | None = None,
) -> BatchedRanker:
    """Load a ranker, which several threads can share; see `BatchedRanker` for processes.

    Args:
        name: A folder written by hfcompress, the folder of any other cross-encoder, or a Hub id.
        runtime: Runtime to use. The default is that of `file`, else that of `default_graph`, else PyTorch.
        file: File in the folder: an ONNX or OpenVINO graph, or packed weights; by default that of `default_graph`.
        max_length: Maximum input length in tokens; by default the tokenizer's.
        options: How the ranker uses the machine, and reads long documents.
        activation: Name of the activation that `rank` applies, e.g. `torch.nn.Identity`; by default the checkpoint's,
            see `activation_name`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for PyTorch; `cuda` is also that of ONNX Runtime's provider
            for it. By default `options.device`, which is the CPU unless it is set. Graphs stay on the CPU under `auto`.
        dtype: `float32`, `float16` or `bfloat16`: precision of a model in PyTorch.
        cache_bytes: Memory for tokenized documents, for callers that score the same documents again and again. By
            default `options.cache_bytes`, which is 0 (no cache) unless it is set. Scores are the same either way.
        score: The score of a classifier with several labels, for PyTorch, which is then the default; None for a
            cross-encoder.
        long_documents: How documents are read that do not fit into one input: a `LongDocuments`, a mapping of its
            attributes, or its mode, `truncate` or `chunk`. By default `options.long_documents`, which truncates unless
            it is set.

    Raises:
        DeviceError: There is no such device here, or the runtime cannot use it.
        ModelError: The model does not exist, does not output a single score, or has settings of sentence-transformers
            that change scores and are not supported.
        MissingExtraError: The runtime is not installed.
    """
    name = str(name)
    if runtime is None and file is not None:
        runtime = FILE_RUNTIMES.get(Path(file).suffix)
    if score is not None:
        runtime = runtime or "torch"
        if runtime != "torch":
            raise ModelError(
                "One score of a classifier is computed by its checkpoint",
                value=f"score with runtime {runtime}",
                expected="score with runtime torch",
                remedy="leave out runtime and file, or score",
            )
    graph = default_graph(Path(name), runtime)
    if runtime is None:
        runtime = graph[0] if graph else "torch"
    options = placed(options or RankerOptions(), runtime, device, dtype)
    if cache_bytes is not None:
        options = replace(options, cache_bytes=cache_bytes)
    if long_documents is not None:
        options = replace(options, long_documents=long_documents_of(long_documents))
    config = load_config(name)
    tokenizer = ranking_tokenizer(name, config, max_length)
    if options.long_documents.chunks and score_text_of(config):
        raise ModelError(
            "This model reads a BM25 score before each document, which later chunks of a document would lack",
            value=f"long_documents: chunk for {name}",
            expected="truncated documents, as in its training",
            remedy="leave out long_documents",
        )
    function = activation_of(config) if activation is None else activation_by_name(_full_name(activation))
    if runtime == "torch":
        model = load_model(name, dtype, file, score, options.device)
        return TorchRanker(model, tokenizer, function, options)
    path = Path(name, file or (graph[1] if graph else ONNX_INT8 if runtime == "onnxruntime" else OPENVINO_INT8))
    if not path.is_file():
        ending = "*.onnx" if runtime == "onnxruntime" else "*.xml"
        others = sorted(str(other.relative_to(name)) for other in Path(name).rglob(ending))
        raise ModelError(
            f"The folder has no graph for {runtime}{' under this name' if others else ''}",
            value=str(path),
            expected="a folder written by `hfcompress run` with an artifact for this runtime",
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
        return OnnxRuntimeRanker(path, tokenizer, function, options)
    return OpenVinoRanker(path, tokenizer, function, options)


def placed(options: RankerOptions, runtime: Runtime, device: str | None, dtype: str = "float32") -> RankerOptions:
    """Options with the device of a name, checked for a runtime.

    Args:
        options: The options.
        runtime: Runtime of the ranker.
        device: As for `load_ranker`.
        dtype: As for `load_ranker`.

    Raises:
        DeviceError: There is no such device here, or the runtime cannot use it, or compute in this precision.
    """
    if dtype not in DTYPES or (runtime != "torch" and dtype != "float32"):
        raise DeviceError(
            f"{runtime} does not run a model in this precision",
            value=f"dtype {dtype}",
            expected=f"{', '.join(DTYPES)} for torch; a graph has the precision that it was exported in",
            remedy="correct dtype, or leave it out",
        )
    if device is None:
        return options
    chosen = torch_device(device)
    if runtime == "torch":
        return replace(options, device=str(chosen))
    if device == "auto" or chosen.type == "cpu":
        return replace(options, device="cpu")
    if runtime == "onnxruntime" and chosen.type == "cuda":
        return replace(options, device=str(chosen), providers=(CUDA_PROVIDER,))
    raise DeviceError(
        f"{runtime} does not run graphs on {device}",
        value=device,
        expected="cpu or auto, with which graphs run on the CPU; cuda for ONNX Runtime",
        remedy="leave the device out, or choose the runtime torch",
    )


def default_graph(folder: Path, runtime: Runtime | None = None) -> tuple[Runtime, str] | None:
    """The int8 graph of a folder that is used by default.

    This is the fastest by the `report.json` of the folder. Without a report, OpenVINO comes before ONNX Runtime.

    Args:
        folder: A folder written by hfcompress, or any other folder.
        runtime: Runtime of the graph; by default any installed runtime.

    Returns:
        Runtime and path in the folder, or None if there is no such graph.
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
