"""Calibration loss: how far a pruned model's ranking is from the dense model's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from hfcompress.data.lists import model_inputs
from hfcompress.losses import listwise_kl
from hfcompress.models.architectures import encoder_layers
from hfcompress.models.hooks import evaluation_mode, hooks
from hfcompress.models.plan import PruningPlan
from hfcompress.models.surgery import pruned_copy
from hfcompress.quantization.first_token import first_token_only

PAIRS_PER_BATCH = 32


class CalibrationLoss:
    """Mean KL divergence, over queries, of the pruned model's softmax over the documents from the dense model's.

    No labels are needed: a plan is good if it ranks as the dense model does. Pairs are scored in order of length,
    independent of their lists.

    Args:
        model: The dense model.
        batches: Batches of `RankingCollator`.
        weights: Gives the updated weights of a plan, see `Importance.weights`.

    Attributes:
        uniform_loss: Loss of uniform scores.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        batches: Sequence[dict[str, Tensor]],
        weights: Callable[[PruningPlan], dict[str, Tensor]],
    ) -> None:
        self.model = model
        self.weights = weights
        self.mask = torch.cat([_widened(batch["list_mask"], batches) for batch in batches])
        self._batches = _by_length(batches, model.config.pad_token_id or 0)
        self.dense = self.scores(model)
        self.uniform_loss = self._loss(torch.zeros_like(self.dense))
        self._cached_plan: PruningPlan | None = None
        self._cached_outputs: list[list[Any]] = []

    def __call__(self, plan: PruningPlan, weights: dict[str, Tensor] | None = None) -> float:
        """Loss of a plan, with the weights given or, by default, those of `self.weights`."""
        pruned = pruned_copy(self.model, plan, self.weights(plan) if weights is None else weights)
        cached = self._cached_plan if weights is None else None
        return self._loss(self.scores(pruned, _shared_layers(plan, cached) if cached else 0))

    def cache_layers(self, plan: PruningPlan) -> None:
        """Cache the outputs of this plan's layers. Plans that share its lower layers are evaluated from there on."""
        pruned = pruned_copy(self.model, plan, self.weights(plan))
        self._cached_plan, self._cached_outputs = plan, [[] for _ in self._batches]
        for batch, outputs in zip(self._batches, self._cached_outputs, strict=True):
            handles = [
                layer.register_forward_hook(lambda _module, _inputs, output, outputs=outputs: outputs.append(output))
                for layer in encoder_layers(pruned)[:-1]
            ]
            with hooks(handles):
                pair_scores(pruned, batch.tensors)

    def scores(self, model: PreTrainedModel, cached: int = 0) -> Tensor:
        """Raw scores, shape `(lists, documents)`; 0 where a list has no document.

        Args:
            model: The model.
            cached: Number of its lowest layers whose outputs are taken from the cache.
        """
        flat = torch.zeros(int(self.mask.sum()))
        for number, batch in enumerate(self._batches):
            with _replayed(model, self._cached_outputs[number][:cached] if cached else []):
                flat[batch.indices] = pair_scores(model, batch.tensors)
        return torch.zeros(self.mask.shape).masked_scatter(self.mask, flat)

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
    """Raw scores of pairs in evaluation mode, shape `(pairs,)`."""
    with evaluation_mode(model), first_token_only(model):
        return model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}).logits[:, 0].float().cpu()


def _by_length(batches: Sequence[dict[str, Tensor]], padding: int) -> list[PairBatch]:
    """All pairs of the batches, sorted by length and padded again."""
    rows = []
    for batch in batches:
        inputs = model_inputs(batch)
        for row, real in enumerate(batch["attention_mask"].bool()):
            rows.append({name: value[row][real] for name, value in inputs.items()})
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]["input_ids"]))
    parts = [order[start : start + PAIRS_PER_BATCH] for start in range(0, len(order), PAIRS_PER_BATCH)]
    return [
        PairBatch(
            {
                name: pad_sequence(
                    [rows[index][name] for index in indices],
                    batch_first=True,
                    padding_value=padding if name == "input_ids" else 0,
                )
                for name in rows[0]
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


@contextmanager
def _replayed(model: PreTrainedModel, outputs: Sequence[Any]) -> Iterator[None]:
    """Let the lowest layers of a model return these outputs within the block, whatever their inputs."""
    layers = list(encoder_layers(model))[: len(outputs)]
    for layer, output in zip(layers, outputs, strict=True):
        layer.forward = lambda *_args, output=output, **_kwargs: output
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
