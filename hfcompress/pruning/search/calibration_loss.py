"""Calibration loss: how far a pruned model's ranking is from the dense model's."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from hfcompress.data.lists import model_inputs
from hfcompress.losses import listwise_kl
from hfcompress.models.architectures import encoder_layers
from hfcompress.models.hooks import evaluation_mode, hooks, replaced_forward
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import pruned_copy
from hfcompress.quantization.first_token import first_token_only
from hfcompress.utils.device import moved

PAIRS_PER_BATCH = 32
CACHE_BYTES = 512 * 2**20  # hidden states kept for `cache_layers`


class CalibrationLoss:
    """Mean KL divergence, over queries, of the pruned model's softmax over the documents from the dense model's.

    No labels are needed: a plan is good if it ranks as the dense model does. Pairs are scored in order of length,
    independent of their lists.

    Memory: `cache_layers` keeps hidden states, `4 * tokens * hidden size` bytes for each layer but the last: 79 MB for
    32 lists of 8 pairs of 40 tokens in MiniLM-L6. It keeps at most `cache_bytes`.

    Args:
        model: The dense model.
        batches: Batches of `RankingCollator`.
        weights: Gives the updated weights of a plan, see `Importance.weights`; those of a layer depend on no other one.
        cache_bytes: Largest size of the cached hidden states.

    Attributes:
        uniform_loss: Loss of uniform scores.
    """

    _cached_plan: PruningPlan | None
    _cached_outputs: list[dict[int, Any]]  # for each batch, by the number of layers that are computed
    _layers: dict[LayerPlan, nn.Module]  # of the cached plan
    _latest: dict[LayerPlan, nn.Module]  # of the plan evaluated last

    def __init__(
        self,
        model: PreTrainedModel,
        batches: Sequence[dict[str, Tensor]],
        weights: Callable[[PruningPlan], dict[str, Tensor]],
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.model = model
        self.weights = weights
        self.mask = torch.cat([_widened(batch["list_mask"], batches) for batch in batches])
        self._pairs = _unpadded(batches)
        self._batches = _by_length(self._pairs, model.config.pad_token_id or 0)
        self._cache_bytes = cache_bytes
        self._forget_layers()
        self.dense = self.scores(model)
        self.uniform_loss = self._loss(torch.zeros_like(self.dense))

    def __call__(self, plan: PruningPlan, weights: dict[str, Tensor] | None = None) -> float:
        """Loss of a plan, with the weights given or, by default, those of `self.weights`."""
        if weights is not None:
            return self._loss(self.scores(pruned_copy(self.model, plan, weights)))
        pruned = pruned_copy(self.model, plan, self.weights(plan), self._layers | self._latest)
        self._latest = dict(zip(plan.layers, encoder_layers(pruned), strict=True))
        cached = self._cached_plan
        return self._loss(self.scores(pruned, _shared_layers(plan, cached) if cached else 0))

    def of_queries(self, every: int) -> CalibrationLoss:
        """An estimate that takes less time: the loss on every second query, every third, and so on.

        It has a cache of its own.

        Args:
            every: Distance of the queries; batches have them in order of length.
        """
        part = copy.copy(self)
        kept = (torch.arange(len(self.mask)) % every == 0)[:, None].expand_as(self.mask)[self.mask].tolist()
        part._pairs = [pair for pair, keep in zip(self._pairs, kept, strict=True) if keep]
        part._batches = _by_length(part._pairs, self.model.config.pad_token_id or 0)
        part._forget_layers()
        part.mask, part.dense = self.mask[::every], self.dense[::every]
        part.uniform_loss = part._loss(torch.zeros_like(part.dense))
        return part

    def cache_layers(self, plan: PruningPlan) -> None:
        """Cache the outputs of this plan's layers. Plans that share its lower layers are evaluated from there on.

        At most `cache_bytes` are kept. If the outputs of all layers take more, every second one is kept, or every
        third, and so on, and evaluations begin at the next lower one that is.
        """
        self._forget_layers()
        layers = len(plan.layers) - 1  # no plan shares the last layer
        tokens = sum(batch.tensors["input_ids"].numel() for batch in self._batches)
        hidden = tokens * self.model.config.hidden_size * self.model.dtype.itemsize
        step = max(1, math.ceil(layers * hidden / max(self._cache_bytes, 1)))
        kept = [number for number in range(1, layers + 1) if number % step == 0]
        pruned = pruned_copy(self.model, plan, self.weights(plan))
        for batch, outputs in zip(self._batches, self._cached_outputs, strict=True):
            handles = [
                encoder_layers(pruned)[number - 1].register_forward_hook(partial(_record, outputs, number))
                for number in kept
            ]
            with hooks(handles), evaluation_mode(pruned), first_token_only(pruned):
                pair_scores(pruned, batch.tensors)
        self._cached_plan, self._layers = plan, dict(zip(plan.layers, encoder_layers(pruned), strict=True))

    def scores(self, model: PreTrainedModel, shared: int = 0) -> Tensor:
        """Raw scores, shape `(lists, documents)`; 0 where a list has no document.

        Args:
            model: The model.
            shared: Number of its lowest layers that are those of the cached plan.
        """
        flat = torch.zeros(int(self.mask.sum()))
        with evaluation_mode(model), first_token_only(model):
            for batch, outputs in zip(self._batches, self._cached_outputs, strict=True):
                cached = max((number for number in outputs if number <= shared), default=0)
                with _replayed(model, cached, outputs.get(cached)):
                    flat[batch.indices] = pair_scores(model, batch.tensors)
        return torch.zeros(self.mask.shape).masked_scatter(self.mask, flat)

    def _forget_layers(self) -> None:
        self._cached_plan = None
        self._layers, self._latest = {}, {}
        self._cached_outputs = [{} for _ in self._batches]

    def _loss(self, scores: Tensor) -> float:
        return float(listwise_kl(scores, self.dense, self.mask).mean())


@dataclass(frozen=True)
class PairBatch:
    """Pairs of similar length.

    Attributes:
        tensors: Inputs of the model, `(pairs, tokens)`.
        indices: Indices of the pairs among those of all lists.
    """

    tensors: dict[str, Tensor]
    indices: list[int]


@torch.inference_mode()
def pair_scores(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    """Raw scores of pairs by a model in evaluation mode, shape `(pairs,)`."""
    return model(**moved(inputs, model.device)).logits[:, 0].float().cpu()


def _unpadded(batches: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Inputs of each pair of all lists, without padding, shape `(tokens,)`."""
    pairs = []
    for batch in batches:
        inputs = model_inputs(batch)
        for row, real in enumerate(batch["attention_mask"].bool()):
            pairs.append({name: value[row][real] for name, value in inputs.items()})
    return pairs


def _by_length(pairs: Sequence[dict[str, Tensor]], padding: int) -> list[PairBatch]:
    """Batches of pairs, sorted by length."""
    order = sorted(range(len(pairs)), key=lambda index: len(pairs[index]["input_ids"]))
    parts = [order[start : start + PAIRS_PER_BATCH] for start in range(0, len(order), PAIRS_PER_BATCH)]
    return [
        PairBatch(
            {
                name: pad_sequence(
                    [pairs[index][name] for index in indices],
                    batch_first=True,
                    padding_value=padding if name == "input_ids" else 0,
                )
                for name in pairs[0]
            },
            indices,
        )
        for indices in parts
    ]


def _widened(mask: Tensor, batches: Sequence[dict[str, Tensor]]) -> Tensor:
    """A mask of lists, padded to the longest list of all batches."""
    return functional.pad(mask, (0, max(batch["list_mask"].shape[1] for batch in batches) - mask.shape[1]))


def _shared_layers(plan: PruningPlan, cached: PruningPlan) -> int:
    """Number of lowest layers that both plans share; the last layer of either is never counted."""
    same = 0
    for layer, other in zip(plan.layers[:-1], cached.layers[:-1], strict=False):
        if layer != other:
            break
        same += 1
    return same


def _record(outputs: dict[int, Any], number: int, _module: nn.Module, _inputs: Any, output: Any) -> None:
    outputs[number] = output


@contextmanager
def _replayed(model: PreTrainedModel, count: int, output: Any) -> Iterator[None]:
    """Let the `count` lowest layers of a model return `output`, that of the highest of them, within the block."""
    with ExitStack() as stack:
        for layer in encoder_layers(model)[:count]:
            stack.enter_context(replaced_forward(layer, lambda *_args, **_kwargs: output))
        yield
