"""The calibration ranking loss: how far a pruned model's ranking is from the dense model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

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

    def __call__(self, plan: PruningPlan, weights: dict[str, Tensor] | None = None) -> float:
        """Loss of a plan, with the weights given or with those that go with it."""
        pruned = pruned_copy(self.model, plan, self.weights(plan) if weights is None else weights)
        losses = [
            listwise_kl(list_scores(pruned, batch), dense, batch["list_mask"])
            for batch, dense in zip(self.batches, self.dense, strict=True)
        ]
        return float(torch.cat(losses).mean())


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
