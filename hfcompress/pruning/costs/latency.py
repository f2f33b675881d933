"""Latency of heads and FFN neurons, measured on the target runtime, in the target precision and on real texts.

Probes are pruned, exported, quantized and run by the same code as real models.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.errors import DataError, RecipeError
from hfcompress.models.surgery import plan_of_config
from hfcompress.pruning.costs.probes import VOCABULARY, Grid, LayerSizes, SmallVocabulary, probe_model, solve_costs
from hfcompress.pruning.costs.table import CostTable
from hfcompress.quantization import onnxruntime as onnx_backend
from hfcompress.quantization import openvino as openvino_backend
from hfcompress.quantization.artifacts import calibration_batches
from hfcompress.quantization.config import QuantizationConfig
from hfcompress.quantization.first_token import reads_first_token_only
from hfcompress.rankers.base import BatchedRanker, Pair, RankerOptions
from hfcompress.rankers.load import Runtime, placed
from hfcompress.rankers.long_documents import LongDocumentEncoder
from hfcompress.rankers.onnxruntime import OnnxRuntimeRanker
from hfcompress.rankers.openvino import OpenVinoRanker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.utils.cache import cache_folder
from hfcompress.utils.device import CPU, device_title
from hfcompress.utils.files import write_text
from hfcompress.utils.machine import cpu_flags, cpu_name, thread_count, versions
from hfcompress.utils.progress import progress_bar

FORMAT = 3
ROUNDS = 7
SAMPLE_TOKENS, FULL_BATCHES = 16384, 2  # a few full batches, also of those that suit a GPU
CALIBRATION_PAIRS = 16  # few, since the activation ranges of random weights do not matter
LENGTH_STEP = 8  # tokens; lengths are rounded to this before distributions are compared
# Config keys that affect the speed of a model, besides the sizes in the grid; a family has some of them.
SHAPE = (
    "model_type", "hidden_size", "num_attention_heads", "embedding_size", "hidden_act", "activation",
    "hidden_activation", "relative_attention", "pos_att_type", "position_buckets", "share_att_key", "local_attention",
    "_attn_implementation",
)  # fmt: skip

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deployment:
    """Where and how a model will run.

    Attributes:
        runtime: The runtime.
        quantization: Settings of the int8 graph for this runtime; None for fp32.
        options: Threads, token budget of a batch, and how documents are read that do not fit into one input.
        documents_per_request: Candidates per query if one query is scored at a time; None for many queries together.
        first_token: Whether exports compute the last layer for the first token only; PyTorch computes all tokens.
        dtype: Precision of a model in PyTorch, which runs on the device of `options`.

    Raises:
        DeviceError: The runtime does not compute in this precision.
        RecipeError: The graph is for another runtime, or a request has no documents.
    """

    runtime: Runtime = "torch"
    quantization: QuantizationConfig | None = None
    options: RankerOptions = field(default_factory=RankerOptions)
    documents_per_request: int | None = None
    first_token: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Check that the settings fit together."""
        if self.quantization and self.quantization.runtime != self.runtime:
            raise RecipeError(
                f"{self.runtime} does not run this graph",
                value=f"{self.quantization.precision} for {self.quantization.runtime}",
                expected="int8 settings made for the same runtime, or None for fp32; torch runs fp32 only",
                remedy="give the runtime and the settings of one artifact",
            )
        placed(self.options, self.runtime, None, self.dtype)
        if self.documents_per_request is not None and self.documents_per_request < 1:
            raise RecipeError(
                "A request has no documents",
                value=self.documents_per_request,
                expected="1 or more candidates of a query, or None for many queries scored together",
                remedy="correct documents_per_request",
            )

    @property
    def place(self) -> dict[str, str]:
        """Device and precision, where they are not those of the CPU: part of the key of cached measurements."""
        if self.options.device == CPU and self.dtype == "float32":
            return {}
        return {"device": device_title(self.options.device), "dtype": self.dtype}

    def last_differs(self, config: PretrainedConfig) -> bool:
        """Whether a layer costs less as the last layer than elsewhere in the model."""
        return self.first_token and self.runtime != "torch" and reads_first_token_only(config)


def measure_costs(
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[Pair],
    deployment: Deployment,
    cache_folder: Path | None = None,
    ffn_multiple: int = 32,
    progress: bool = True,
) -> CostTable:
    """Measure the cost of attention and FFN sublayers of every size, or read an earlier measurement from the cache.

    Args:
        config: Config of the model to be pruned, which may be pruned already.
        tokenizer: Its tokenizer, with `model_max_length` set.
        pairs: A few hundred pairs like those to be ranked. If `deployment` has `documents_per_request`, the documents
            of a query must be adjacent.
        deployment: Where and how the model will run.
        cache_folder: Folder of cached measurements; by default `default_cache_folder()`.
        ffn_multiple: FFN widths of pruned models are multiples of this.
        progress: Show a progress bar.

    Returns:
        Costs in seconds per document, with all of its chunks; tokenization is part of the fixed cost. If the last layer
        has costs of its own, its bias, residual and norm are part of the fixed cost too, since every model has them.

    Raises:
        DataError: There are no pairs.
        MissingExtraError: The runtime is not installed.
        ModelError: The family is not supported.
    """
    if not pairs:
        raise _no_pairs()
    if deployment.runtime == "openvino":
        openvino_backend.require_openvino()
    full = plan_of_config(config)
    grid = Grid.of(full.heads_of, full.ffn_of, ffn_multiple, deployment.last_differs(config))
    encoder = LongDocumentEncoder(tokenizer, deployment.options.long_documents)
    lengths = np.array(encoder.read_lengths(pairs, tokenizer.model_max_length))
    key = json.dumps(_conditions(config, tokenizer, pairs, lengths, deployment, grid), indent=2)
    path = (cache_folder or default_cache_folder()) / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    table = _read(path)
    if table is None:
        sample = sample_requests(pairs, lengths, deployment)
        table = solve_costs(grid, partial(time_probes, config, tokenizer, sample, deployment, progress))
        record = {"format": FORMAT, "conditions": json.loads(key), "table": asdict(table)}
        write_text(path, json.dumps(record, indent=2) + "\n")
    return table


def time_rankers(
    rankers: Sequence[BatchedRanker],
    pairs: Sequence[Pair],
    rounds: int,
    documents_per_request: int | None = None,
    progress: bool = False,
) -> list[float]:
    """Time rankers on the same pairs in turns, so that changes in the machine's speed affect all of them alike.

    The first round is a warm-up and not counted: runtimes prepare kernels when they first see a shape.

    Args:
        rankers: The rankers.
        pairs: Texts; with `documents_per_request`, the documents of a query must be adjacent.
        rounds: Number of rounds, without the warm-up.
        documents_per_request: Number of pairs scored at a time; None for all together.
        progress: Show a progress bar.

    Returns:
        Seconds per document of each ranker, with tokenization: its median share of a round times the median round.

    Raises:
        DataError: There are no pairs.
    """
    if not pairs:
        raise _no_pairs()
    size = documents_per_request or len(pairs)
    requests = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    turns = progress_bar(range(1 + rounds), desc="timing", unit="round", disable=not progress, leave=False)
    seconds = np.array([[_seconds(ranker, requests) for ranker in rankers] for _ in turns])[1:]
    totals = seconds.sum(axis=1, keepdims=True)
    return (np.median(seconds / totals, axis=0) * np.median(totals) / len(pairs)).tolist()


def _seconds(ranker: BatchedRanker, requests: Sequence[Sequence[Pair]]) -> float:
    ranker.synchronize()
    start = time.perf_counter()
    for request in requests:
        ranker.score(request)
    ranker.synchronize()
    return time.perf_counter() - start


def time_probes(
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[Pair],
    deployment: Deployment,
    progress: bool,
    probes: list[LayerSizes],
) -> list[float]:
    """Seconds per document of each probe."""
    small = cast(PreTrainedTokenizerFast, SmallVocabulary(tokenizer))
    calibration = calibration_batches(tokenizer, pairs[:CALIBRATION_PAIRS])
    for batch in calibration:
        batch["input_ids"] %= VOCABULARY
    models = (
        probe_model(config, sizes)
        for sizes in progress_bar(probes, desc="latency probes", disable=not progress, leave=False)
    )
    return time_models(models, small, pairs, deployment, calibration, progress)


def time_models(
    models: Iterable[PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[Pair],
    deployment: Deployment,
    calibration: Sequence[dict[str, torch.Tensor]],
    progress: bool = False,
) -> list[float]:
    """Seconds per document of each model, deployed with `deploy` and timed with `time_rankers` over `ROUNDS` rounds."""
    with tempfile.TemporaryDirectory() as folder:
        rankers = [
            deploy(model, tokenizer, deployment, calibration, Path(folder, str(number)))
            for number, model in enumerate(models)
        ]
        return time_rankers(rankers, pairs, ROUNDS, deployment.documents_per_request, progress)


def deploy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    deployment: Deployment,
    calibration: Sequence[dict[str, torch.Tensor]],
    folder: Path,
) -> BatchedRanker:
    """Export, quantize and load a model as it will be deployed.

    Args:
        model: A sequence-classification model, pruned or not.
        tokenizer: Its tokenizer.
        deployment: Where and how it will run.
        calibration: Batches of model inputs, for static int8.
        folder: Folder for the graph; it must exist as long as the ranker is used.

    Returns:
        A ranker that returns raw logits.
    """
    graph: Any
    int8: Any = deployment.quantization
    if deployment.runtime == "torch":
        deployed = copy.deepcopy(model)
        nn.Module.to(deployed, deployment.options.device, getattr(torch, deployment.dtype))
        return TorchRanker(deployed, tokenizer, options=deployment.options)
    if deployment.runtime == "onnxruntime":
        graph = onnx_backend.export_onnx(model, tokenizer, deployment.first_token)
        graph = onnx_backend.quantize(graph, int8, calibration) if int8 else graph
        path = onnx_backend.save_onnx(graph, folder / "model.onnx")
        return OnnxRuntimeRanker(path, tokenizer, options=deployment.options)
    graph = openvino_backend.export_openvino(model, tokenizer, deployment.first_token)
    graph = openvino_backend.quantize(graph, int8, calibration) if int8 else graph
    path = openvino_backend.save_openvino(graph, folder / "model.xml")
    return OpenVinoRanker(path, tokenizer, options=deployment.options)


def sample_requests(pairs: Sequence[Pair], lengths: np.ndarray, deployment: Deployment) -> list[Pair]:
    """Whole requests, evenly spaced over all pairs; repeated if there are too few.

    They have about `SAMPLE_TOKENS` tokens, or `FULL_BATCHES` batches if these have more.
    """
    size = deployment.documents_per_request or 1
    requests = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    tokens = max(SAMPLE_TOKENS, FULL_BATCHES * deployment.options.batch_tokens)
    count = math.ceil(tokens / lengths.mean() / size)
    indices = np.linspace(0, len(requests), count, endpoint=False).astype(int)
    return [pair for index in indices for pair in requests[index]]


def default_cache_folder() -> Path:
    """`latency` in the cache folder of the package."""
    return cache_folder() / "latency"


def _conditions(
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[Pair],
    lengths: np.ndarray,
    deployment: Deployment,
    grid: Grid,
) -> dict[str, Any]:
    """Everything that the costs depend on, as plain data: the key of the cache."""
    mix = Counter((LENGTH_STEP * np.round(lengths / LENGTH_STEP)).astype(int).tolist())
    int8, options = deployment.quantization, deployment.options
    reading = options.long_documents
    return {
        "machine": [cpu_name(), cpu_flags(), thread_count()],
        "versions": versions(),
        "model": {name: getattr(config, name, None) for name in SHAPE},
        "grid": asdict(grid),
        "runtime": deployment.runtime,
        "int8": int8.to_diff_dict() if int8 else None,
        **deployment.place,
        "threads": thread_count(options.threads),
        "batch_tokens": options.batch_tokens,
        "documents_per_request": deployment.documents_per_request,
        "tokenizer": [type(tokenizer.backend_tokenizer.model).__name__, len(tokenizer), tokenizer.model_max_length],
        **({} if reading.is_default else {"long_documents": reading.model_dump(mode="json")}),
        "percent_by_tokens": {length: round(100 * mix[length] / len(pairs)) for length in sorted(mix)},
        "characters": float(f"{np.mean([len(query) + len(document) for query, document in pairs]):.1e}"),
    }


def _read(path: Path) -> CostTable | None:
    """A cached measurement; None if there is none that can be read."""
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']}")
        unit, fixed, *parts = (record["table"][name] for name in CostTable.__dataclass_fields__)
        return CostTable(unit, float(fixed), *({int(k): float(v) for k, v in part.items()} for part in parts))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s cannot be read (%s); measuring again", path, error)
        return None


def _no_pairs() -> DataError:
    return DataError(
        "There are no texts to time",
        expected="a few hundred pairs like those to be ranked",
        remedy="give pairs of query and document",
    )
