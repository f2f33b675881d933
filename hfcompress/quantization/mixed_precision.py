"""Mixed precision: the most sensitive linear layers stay in fp32, as few as a bound on the ranking loss allows."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import onnx_ir
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.errors import DataError, RecipeError
from hfcompress.losses import by_list, listwise_kl
from hfcompress.models.architectures import encoder_linears
from hfcompress.models.hooks import hooks
from hfcompress.quantization.config import MixedPrecisionConfig
from hfcompress.quantization.onnxruntime import constant_factor, quantize, save_onnx
from hfcompress.quantization.rounding import Range, fake_quantized, weight_steps
from hfcompress.rankers.base import Pair
from hfcompress.rankers.onnxruntime import OnnxRuntimeRanker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.utils.progress import progress_bar

ORDERING_LISTS = 8  # each linear layer costs a pass over these; the bound is checked on all lists


def choose_fp32_modules(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    graph: onnx_ir.Model,
    config: MixedPrecisionConfig,
    *,
    calibration: Sequence[dict[str, Tensor]],
    pairs: Sequence[Pair],
    progress: bool = True,
) -> tuple[MixedPrecisionConfig, onnx_ir.Model]:
    """Choose the linear layers of the encoder that stay in fp32, and quantize the others.

    Layers are ordered by the loss with only this layer's weight and input rounded, in PyTorch. Rounding errors of
    different layers are nearly independent, so their losses nearly add up. The alternative, all layers but one rounded,
    would be the small difference of two large losses. The number of layers in fp32 is then found by bisection on
    deployed graphs, so the bound holds for the returned graph.

    Args:
        model: The model in fp32.
        tokenizer: Its tokenizer.
        graph: Its export.
        config: Bound and int8 settings.
        calibration: Batches of model inputs, for static int8.
        pairs: Pairs with several documents of each query. The loss is the divergence of the softmax over these
            documents from that of the fp32 model, as the mean over queries.
        progress: Show a progress bar.

    Returns:
        The config with the chosen layers and their losses, and the quantized graph.

    Raises:
        DataError: No query has two documents.
        RecipeError: The bound is exceeded with all linear layers in fp32.
    """
    lists = ranking_lists(pairs)
    reference = TorchRanker(model, tokenizer)
    loss_of = _Loss(lists, reference.score(pairs))
    nodes = weight_nodes(model, graph)

    def deployed(modules: Sequence[str]) -> tuple[float, onnx_ir.Model]:
        excluded = [node for module in modules for node in nodes[module]]
        quantized = quantize(graph, config, calibration, excluded)
        with tempfile.TemporaryDirectory() as folder:
            path = save_onnx(quantized, Path(folder, "model.onnx"))
            return loss_of(OnnxRuntimeRanker(path, tokenizer).score(pairs)), quantized

    loss_int8, quantized = deployed([])
    figures: dict[str, float] = {"loss_int8": loss_int8, "loss": loss_int8, "modules": len(nodes)}
    if loss_int8 <= config.max_loss:
        return config.with_choice([], {}, figures), quantized
    sample = [pairs[index] for indices in lists[:ORDERING_LISTS] for index in indices]
    loss_of_few = _Loss(ranking_lists(sample), reference.score(sample))
    sensitivity = _sensitivity(model, nodes, config, lambda: loss_of_few(reference.score(sample)), progress)
    order = sorted(sensitivity, key=lambda module: -sensitivity[module])
    loss, quantized = deployed(order)
    if loss > config.max_loss:
        raise RecipeError(
            "Mixed precision cannot keep the bound on the calibration loss",
            value=f"{loss:.3g} with all linear layers of the encoder in fp32",
            expected=f"at most {config.max_loss:g}",
            remedy="raise max_loss; the remaining loss comes from the embeddings, and in dynamic int8 from the head",
        )
    low, high = 0, len(order)  # the first `low` layers are too few, the first `high` are enough
    while high - low > 1:
        middle = (low + high) // 2
        loss_middle, quantized_middle = deployed(order[:middle])
        if loss_middle <= config.max_loss:
            high, loss, quantized = middle, loss_middle, quantized_middle
        else:
            low = middle
    return config.with_choice(order[:high], sensitivity, {**figures, "loss": loss}), quantized


def describe(config: MixedPrecisionConfig) -> str:
    """The choice in one line of text."""
    kept = config.fp32_modules or []
    return (
        f"{len(kept)} of {config.figures['modules']:.0f} linear layers stay in fp32: calibration loss "
        f"{config.figures['loss']:.2g} instead of {config.figures['loss_int8']:.2g}, at most {config.max_loss:g}"
    )


def weight_nodes(model: PreTrainedModel, graph: onnx_ir.Model) -> dict[str, list[str]]:
    """Nodes of a graph that multiply by the weights of the encoder's linear layers.

    Exports rename and transpose weights, so nodes are found by the values of their weights.

    Args:
        model: The model.
        graph: Its export in fp32.

    Returns:
        Names of the nodes by name of the linear layer.
    """
    by_value = defaultdict(list)
    for node in graph.graph:
        if node.op_type in ("MatMul", "Gemm") and (weight := constant_factor(node)) is not None:
            by_value[_key(weight.numpy())].append(str(node.name))
    found = {}
    for name, module in encoder_linears(model).items():
        values = module.weight.detach().float().cpu().numpy()
        found[name] = list(dict.fromkeys([*by_value[_key(values.T)], *by_value[_key(values)]]))
    return {name: nodes for name, nodes in found.items() if nodes}


def ranking_lists(pairs: Sequence[Pair]) -> list[list[int]]:
    """Indices of the pairs of each query that has two or more documents.

    Raises:
        DataError: There is no such query.
    """
    by_query = defaultdict(list)
    for index, (query, _) in enumerate(pairs):
        by_query[query].append(index)
    lists = [indices for indices in by_query.values() if len(indices) > 1]
    if not lists:
        raise DataError(
            "Mixed precision has no lists to rank",
            value=f"{len(pairs)} pairs, no two of one query",
            expected="pairs with several documents of each query; 32 queries with 8 documents are plenty",
            remedy="give such pairs",
        )
    return lists


class _Loss:
    """The calibration loss of scores, which are in the order of the pairs."""

    def __init__(self, lists: Sequence[Sequence[int]], dense: np.ndarray) -> None:
        lengths = torch.tensor([len(indices) for indices in lists])
        self.mask = torch.arange(int(lengths.max())) < lengths[:, None]
        self.indices = torch.tensor([index for indices in lists for index in indices])
        self.dense = self._as_lists(dense)

    def __call__(self, scores: np.ndarray) -> float:
        return float(listwise_kl(self._as_lists(scores), self.dense, self.mask).mean())

    def _as_lists(self, scores: np.ndarray) -> Tensor:
        return by_list(torch.from_numpy(scores)[self.indices], self.mask)


def _sensitivity(
    model: PreTrainedModel,
    modules: Collection[str],
    config: MixedPrecisionConfig,
    loss: Callable[[], float],
    progress: bool,
) -> dict[str, float]:
    """Loss with one linear layer in int8, by its name."""
    steps = weight_steps(config.reduce_range)
    linears = {name: module for name, module in encoder_linears(model).items() if name in modules}
    limits = _input_ranges(linears, loss) if config.mode == "static" else {}
    found = {}
    for name, module in progress_bar(linears.items(), desc="int8 layer by layer", disable=not progress, leave=False):
        with fake_quantized(module, config.per_channel, steps, limits.get(name)):
            found[name] = loss()
    return found


def _input_ranges(linears: dict[str, nn.Linear], run: Callable[[], float]) -> dict[str, Range]:
    """Minimum and maximum input of each layer during `run`."""
    ranges: dict[str, Range] = {}

    def observe(name: str, inputs: Tensor) -> None:
        low, high = (float(bound) for bound in inputs.aminmax())
        before = ranges.get(name, (low, high))
        ranges[name] = min(low, before[0]), max(high, before[1])

    handles = [
        module.register_forward_pre_hook(lambda _module, inputs, name=name: observe(name, inputs[0]))
        for name, module in linears.items()
    ]
    with hooks(handles):
        run()
    return ranges


def _key(weight: np.ndarray) -> tuple[tuple[int, ...], int]:
    return weight.shape, hash(np.ascontiguousarray(weight).tobytes())
