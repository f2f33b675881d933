"""The calibration ranking loss: how far a pruned model's ranking is from the dense model's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hfcompress.architectures import encoder_layers
from hfcompress.plan import PruningPlan
from hfcompress.quantization.first_token import first_token_only
from hfcompress.surgery import pruned_copy
from hfcompress.training.losses import listwise_kl
from hfcompress.training.trainer import RANKING_COLUMNS


class CalibrationLoss:
    """Mean divergence of the pruned model's softmax over a query's documents from the dense model's.

    Needs no labels: a plan is good if it ranks as the dense model does.

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
        self.batches = batches
        self.weights = weights
        self.dense = [list_scores(model, batch) for batch in batches]
        self.chance = self._mean([torch.zeros_like(scores) for scores in self.dense])
        self._kept: PruningPlan | None = None
        self._outputs: list[list[Any]] = []

    def __call__(self, plan: PruningPlan, weights: dict[str, Tensor] | None = None) -> float:
        """Loss of a plan, with the weights given or with those that go with it."""
        pruned = pruned_copy(self.model, plan, self.weights(plan) if weights is None else weights)
        shared = 0 if weights is not None or self._kept is None else _shared_layers(plan, self._kept)
        scores = []
        for number, batch in enumerate(self.batches):
            with _replayed(pruned, self._outputs[number][:shared] if shared else []):
                scores.append(list_scores(pruned, batch))
        return self._mean(scores)

    def _mean(self, scores: Sequence[Tensor]) -> float:
        losses = [
            listwise_kl(given, dense, batch["list_mask"])
            for given, dense, batch in zip(scores, self.dense, self.batches, strict=True)
        ]
        return float(torch.cat(losses).mean())

    def keep(self, plan: PruningPlan) -> None:
        """Keep what the layers of this plan put out: plans that share its lower layers are judged from there on."""
        pruned = pruned_copy(self.model, plan, self.weights(plan))
        self._kept, self._outputs = plan, []
        for batch in self.batches:
            outputs: list[Any] = []
            hooks = [
                layer.register_forward_hook(lambda _module, _inputs, output, outputs=outputs: outputs.append(output))
                for layer in encoder_layers(pruned)[:-1]
            ]
            list_scores(pruned, batch)
            for hook in hooks:
                hook.remove()
            self._outputs.append(outputs)


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


@torch.inference_mode()
def list_scores(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """Raw scores of a batch of lists, shape `(lists, documents)`; 0 where a list has no document."""
    training = model.training
    inputs = {name: value for name, value in batch.items() if name not in RANKING_COLUMNS}
    with first_token_only(model.eval()):
        flat = model(**inputs).logits[:, 0].float()
    model.train(training)
    mask = batch["list_mask"]
    scores = torch.zeros(mask.shape)
    scores[mask] = flat.cpu()
    return scores
