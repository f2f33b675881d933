"""Mixed precision: the linear layers whose int8 moves the ranking most stay in fp32, as few as a bound allows."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.architectures import encoder_layers
from hfcompress.errors import DataError, RecipeError
from hfcompress.progress import progress_bar
from hfcompress.quantization.config import MixedPrecisionConfig
from hfcompress.quantization.onnxruntime import quantize, save_onnx
from hfcompress.quantization.rounding import Range, rounded, weight_steps
from hfcompress.rankers.base import Pair
from hfcompress.rankers.onnxruntime import OnnxRuntimeRanker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.training.losses import listwise_kl

ORDERING_LISTS = 8  # each linear layer costs a pass over these; the bound is kept on all lists


def choose_fp32_modules(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    graph: onnx_ir.Model,
    config: MixedPrecisionConfig,
    calibration: Sequence[dict[str, Tensor]],
    pairs: Sequence[Pair],
    progress: bool = True,
) -> tuple[MixedPrecisionConfig, onnx_ir.Model]:
    """Find the linear layers of the encoder to keep in fp32, and quantize the rest.

    Layers are put in order by the loss with the weight and the input of this one alone rounded, in PyTorch. Roundings
    of different layers are close to independent, so that their losses nearly add up, and each one is seen for itself;
    with all layers but one rounded, it would be the small difference of two large losses. How many of the first ones
    must stay in fp32 is then bisected on graphs as they will be deployed, so what is chosen keeps the bound there.

    Args:
        model: The model in fp32.
        tokenizer: Its tokenizer.
        graph: Its export.
        config: Bound and settings of int8.
        calibration: Batches of model inputs, for static int8.
        pairs: Texts, with several documents of each query. The loss is the divergence of the softmax over these
            documents from that of the model in fp32, mean over queries.
        progress: Show a progress bar.

    Returns:
        The config with the choice and its figures, and the quantized graph.

    Raises:
        DataError: No query has two documents.
        RecipeError: The bound is out of reach with all linear layers in fp32.
    """
    lists = ranking_lists(pairs)
    reference = TorchRanker(model, tokenizer, lambda logits: logits)
    loss_of = _Loss(lists, reference.score(pairs))
    nodes = weight_nodes(model, graph)

    def deployed(modules: Sequence[str]) -> tuple[float, onnx_ir.Model]:
        excluded = [node for module in modules for node in nodes[module]]
        quantized = quantize(graph, config, calibration, excluded)
        with tempfile.TemporaryDirectory() as folder:
            path = save_onnx(quantized, Path(folder, "model.onnx"))
            return loss_of(OnnxRuntimeRanker(path, tokenizer, lambda logits: logits).score(pairs)), quantized

    loss_int8, quantized = deployed([])
    figures: dict[str, float] = {"loss_int8": loss_int8, "loss": loss_int8, "modules": len(nodes)}
    if loss_int8 <= config.max_loss:
        return config.with_choice([], {}, figures), quantized
    sample = [pairs[place] for places in lists[:ORDERING_LISTS] for place in places]
    loss_of_few = _Loss(ranking_lists(sample), reference.score(sample))
    sensitivity = _sensitivity(model, list(nodes), config, lambda: loss_of_few(reference.score(sample)), progress)
    order = sorted(sensitivity, key=lambda module: -sensitivity[module])
    loss, quantized = deployed(order)
    if loss > config.max_loss:
        raise RecipeError(
            "Mixed precision cannot keep the bound on the calibration loss",
            value=f"{loss:.3g} with all linear layers of the encoder in fp32",
            expected=f"at most {config.max_loss:g}",
            remedy="raise max_loss; what is left comes from the embeddings, and in dynamic int8 from the head",
        )
    low, high = 0, len(order)  # the first `low` are too few, the first `high` are enough
    while high - low > 1:
        middle = (low + high) // 2
        tried, made = deployed(order[:middle])
        if tried <= config.max_loss:
            high, loss, quantized = middle, tried, made
        else:
            low = middle
    return config.with_choice(order[:high], sensitivity, {**figures, "loss": loss}), quantized


def describe(config: MixedPrecisionConfig) -> str:
    """What was chosen, in a line."""
    kept = config.fp32_modules or []
    return (
        f"{len(kept)} of {config.figures['modules']:.0f} linear layers stay in fp32: calibration loss "
        f"{config.figures['loss']:.2g} instead of {config.figures['loss_int8']:.2g}, at most {config.max_loss:g}"
    )


def weight_nodes(model: PreTrainedModel, graph: onnx_ir.Model) -> dict[str, list[str]]:
    """Nodes of a graph that multiply by the weights of the encoder's linear layers.

    Exports rename and transpose weights, so nodes are found by the values.

    Args:
        model: The model.
        graph: Its export in fp32.

    Returns:
        Names of nodes by name of the linear layer.
    """
    by_value = defaultdict(list)
    for node in graph.graph:
        if node.op_type in ("MatMul", "Gemm"):
            weight = node.inputs[1].const_value if node.inputs[1] is not None else None
            if weight is not None:
                by_value[_key(weight.numpy())].append(str(node.name))
    found = {}
    for name, module in _linears(model):
        values = module.weight.detach().float().cpu().numpy()
        found[name] = list(dict.fromkeys([*by_value[_key(values.T)], *by_value[_key(values)]]))
    return {name: nodes for name, nodes in found.items() if nodes}


def ranking_lists(pairs: Sequence[Pair]) -> list[list[int]]:
    """Places in the pairs of the documents of each query that has two or more.

    Raises:
        DataError: No query has.
    """
    by_query = defaultdict(list)
    for place, (query, _) in enumerate(pairs):
        by_query[query].append(place)
    lists = [places for places in by_query.values() if len(places) > 1]
    if not lists:
        raise DataError(
            "Mixed precision has no lists to rank",
            value=f"{len(pairs)} pairs, no two of one query",
            expected="pairs with several documents of each query; 32 queries with 8 documents are plenty",
            remedy="give such pairs",
        )
    return lists


class _Loss:
    """The calibration ranking loss of scores in the order of the pairs."""

    def __init__(self, lists: Sequence[Sequence[int]], dense: np.ndarray) -> None:
        self.mask = torch.zeros(len(lists), max(map(len, lists)), dtype=torch.bool)
        for row, places in enumerate(lists):
            self.mask[row, : len(places)] = True
        self.places = torch.tensor([place for places in lists for place in places])
        self.dense = self._as_lists(dense)

    def __call__(self, scores: np.ndarray) -> float:
        return float(listwise_kl(self._as_lists(scores), self.dense, self.mask).mean())

    def _as_lists(self, scores: np.ndarray) -> Tensor:
        filled = torch.zeros(self.mask.shape)
        filled[self.mask] = torch.from_numpy(scores)[self.places]
        return filled


def _sensitivity(
    model: PreTrainedModel,
    modules: Sequence[str],
    config: MixedPrecisionConfig,
    loss: Callable[[], float],
    progress: bool,
) -> dict[str, float]:
    """Loss with one linear layer rounded, by its name."""
    steps = weight_steps(config.reduce_range)
    linears = {name: module for name, module in _linears(model) if name in set(modules)}
    limits = _input_ranges(linears, loss) if config.mode == "static" else {}
    found = {}
    for name, module in progress_bar(linears.items(), desc="int8 layer by layer", disable=not progress, leave=False):
        with rounded(module, config.per_channel, steps, limits.get(name)):
            found[name] = loss()
    return found


def _input_ranges(linears: dict[str, nn.Linear], run: Callable[[], float]) -> dict[str, Range]:
    """Least and largest input of each layer while the model runs."""
    ranges: dict[str, Range] = {}

    def observe(name: str, inputs: Tensor) -> None:
        low, high = (float(bound) for bound in inputs.aminmax())
        before = ranges.get(name, (low, high))
        ranges[name] = min(low, before[0]), max(high, before[1])

    hooks = [
        module.register_forward_pre_hook(lambda _module, inputs, name=name: observe(name, inputs[0]))
        for name, module in linears.items()
    ]
    run()
    for hook in hooks:
        hook.remove()
    return ranges


def _linears(model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear]]:
    """Linear layers of the encoder with their names in the model."""
    inside = {module for layer in encoder_layers(model) for module in layer.modules() if isinstance(module, nn.Linear)}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module in inside:
            yield name, module


def _key(weight: np.ndarray) -> tuple[tuple[int, ...], int]:
    return weight.shape, hash(np.ascontiguousarray(weight).tobytes())
