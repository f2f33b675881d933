"""The calibration ranking loss: how far a pruned model's ranking is from the dense model's."""

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

from hfcompress.architectures import encoder_layers
from hfcompress.plan import PruningPlan
from hfcompress.quantization.first_token import first_token_only
from hfcompress.surgery import pruned_copy
from hfcompress.training.losses import listwise_kl
from hfcompress.training.trainer import RANKING_COLUMNS

PAIRS_PER_BATCH = 32


class CalibrationLoss:
    """Mean divergence of the pruned model's softmax over a query's documents from the dense model's.

    Needs no labels: a plan is good if it ranks as the dense model does. Pairs are scored in order of their length,
    whatever list they are of.

    Args:
        model: The dense model.
        batches: Batches of `RankingCollator`.
        weights: Weights that go with a plan, see `Importance.weights`.

    Attributes:
        chance: Loss of a model that scores all documents alike.
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
        self._pairs = _by_length(batches, model.config.pad_token_id or 0)
        self.dense = self.scores(model)
        self.chance = self._loss(torch.zeros_like(self.dense))
        self._kept: PruningPlan | None = None
        self._outputs: list[list[Any]] = []

    def __call__(self, plan: PruningPlan, weights: dict[str, Tensor] | None = None) -> float:
        """Loss of a plan, with the weights given or with those that go with it."""
        pruned = pruned_copy(self.model, plan, self.weights(plan) if weights is None else weights)
        shared = 0 if weights is not None or self._kept is None else _shared_layers(plan, self._kept)
        return self._loss(self.scores(pruned, shared))

    def keep(self, plan: PruningPlan) -> None:
        """Keep what the layers of this plan put out: plans that share its lower layers are judged from there on."""
        pruned = pruned_copy(self.model, plan, self.weights(plan))
        self._kept, self._outputs = plan, [[] for _ in self._pairs]
        for inputs, outputs in zip(self._pairs, self._outputs, strict=True):
            hooks = [
                layer.register_forward_hook(lambda _module, _inputs, output, outputs=outputs: outputs.append(output))
                for layer in encoder_layers(pruned)[:-1]
            ]
            pair_scores(pruned, inputs.tensors)
            for hook in hooks:
                hook.remove()

    def scores(self, model: PreTrainedModel, shared: int = 0) -> Tensor:
        """Raw scores, shape `(lists, documents)`; 0 where a list has no document.

        Args:
            model: The model.
            shared: So many of its lowest layers are those that were kept.
        """
        flat = torch.zeros(int(self.mask.sum()))
        for number, inputs in enumerate(self._pairs):
            with _replayed(model, self._outputs[number][:shared] if shared else []):
                flat[inputs.places] = pair_scores(model, inputs.tensors)
        return torch.zeros(self.mask.shape).masked_scatter(self.mask, flat)

    def _loss(self, scores: Tensor) -> float:
        return float(listwise_kl(scores, self.dense, self.mask).mean())


@dataclass(frozen=True)
class Pairs:
    """Pairs of like length.

    Attributes:
        tensors: Inputs of the model, `(pairs, tokens)`.
        places: Where the pairs stand among those of all lists.
    """

    tensors: dict[str, Tensor]
    places: list[int]


@torch.inference_mode()
def pair_scores(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    """Raw scores of pairs, in evaluation mode, shape `(pairs,)`."""
    training = model.training
    with first_token_only(model.eval()):
        scores = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}).logits[:, 0].float().cpu()
    model.train(training)
    return scores


def _by_length(batches: Sequence[dict[str, Tensor]], padding: int) -> list[Pairs]:
    """All pairs of the batches in order of their length, padded anew."""
    rows = []
    for batch in batches:
        inputs = {name: value for name, value in batch.items() if name not in RANKING_COLUMNS}
        for row, real in enumerate(batch["attention_mask"].bool()):
            rows.append({name: value[row][real] for name, value in inputs.items()})
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]["input_ids"]))
    parts = [order[start : start + PAIRS_PER_BATCH] for start in range(0, len(order), PAIRS_PER_BATCH)]
    return [
        Pairs(
            {
                name: pad_sequence(
                    [rows[place][name] for place in places],
                    batch_first=True,
                    padding_value=padding if name == "input_ids" else 0,
                )
                for name in rows[0]
            },
            places,
        )
        for places in parts
    ]


def _widened(mask: Tensor, batches: Sequence[dict[str, Tensor]]) -> Tensor:
    """A mask of lists, as wide as the widest."""
    return functional.pad(mask, (0, max(batch["list_mask"].shape[1] for batch in batches) - mask.shape[1]))


def _shared_layers(plan: PruningPlan, kept: PruningPlan) -> int:
    """How many of the lowest layers are the same; at least one layer of the plan is not counted."""
    same = 0
    for layer, other in zip(plan.layers[:-1], kept.layers[:-1], strict=False):
        if layer != other:
            break
        same += 1
    return same


@contextmanager
def _replayed(model: PreTrainedModel, outputs: Sequence[Any]) -> Iterator[None]:
    """For the block, let the lowest layers of a model give these outputs, whatever they are called with."""
    layers = list(encoder_layers(model))[: len(outputs)]
    for layer, output in zip(layers, outputs, strict=True):
        layer.forward = lambda *_args, output=output, **_kwargs: output
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
