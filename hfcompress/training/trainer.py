"""Trainers whose batches are lists of documents: fine-tuning on labels, and distillation from a teacher's scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_utils import TrainOutput

from hfcompress.errors import DataError
from hfcompress.recipe import DistillationLoss
from hfcompress.training.arguments import check_precision
from hfcompress.training.callbacks import FiguresCallback, check_best_metric
from hfcompress.training.losses import (
    adr_mse,
    bce,
    infonce,
    lambda_loss,
    listmle,
    listwise_kl,
    listwise_softmax,
    margin_mse,
    mse,
    ranknet,
)

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
LABEL_LOSSES: dict[str, Loss] = {"listwise": listwise_softmax, "pointwise": bce}
# The terms of `DistillationLoss`, but for `listwise_kl`, which has a temperature: what the teacher's scores, and what
# the labels say.
TEACHER_TERMS: dict[str, Loss] = {
    "margin_mse": margin_mse, "ranknet": ranknet, "adr_mse": adr_mse, "listmle": listmle, "mse": mse,
}  # fmt: skip
LABEL_TERMS: dict[str, Loss] = {"hard": ranknet, "lambda_ndcg": lambda_loss, "infonce": infonce, "bce": bce}
RANKING_COLUMNS = ("labels", "teacher_scores", "list_mask")


class RankingTrainer(Trainer):
    """`Trainer` for cross-encoders, on batches of `RankingCollator`, with a loss on relevance labels.

    The loss is the mean over the lists of the whole optimizer step: gradient accumulation gives the gradient of one
    large batch, also when the last part is smaller, and so do several processes.

    Args:
        label_loss: `listwise` or `pointwise`.
        *args: As for `Trainer`.
        **kwargs: As for `Trainer`; take `RankingTrainingArguments`, or set `remove_unused_columns` to False.

    Raises:
        ModelError: DeBERTa-v2 or -v3 would be trained in fp16.
        RecipeError: When training begins: no evaluation will yield what `metric_for_best_model` names.
    """

    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, label_loss: str = "listwise", **kwargs: Any):
        super().__init__(*args, **kwargs)
        check_precision(self.model, self.args)
        self.label_loss = LABEL_LOSSES[label_loss]
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, FiguresCallback):
                callback.set_trainer(self)

    def list_losses(self, scores: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """Loss of each list, shape `(lists,)`, from fp32 scores `(lists, documents)`."""
        return self.label_loss(scores, targets["labels"], targets["list_mask"])

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum of the list losses over the number of lists in the whole optimizer step."""
        targets = {name: inputs[name] for name in RANKING_COLUMNS if name in inputs}
        outputs = model(**{name: value for name, value in inputs.items() if name not in RANKING_COLUMNS})
        mask = targets["list_mask"]
        scores = torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, outputs.logits.float())
        losses = self.list_losses(scores, targets)
        # Data parallelism averages gradients over processes, while `num_items_in_batch` counts the lists of all.
        loss = losses.mean() if num_items_in_batch is None else losses.sum() * self.args.world_size / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, Any]:
        """Batches of one optimizer step, and the number of lists in them over all processes."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        lists = torch.tensor(sum(len(batch["list_mask"]) for batch in batches), device=self.args.device)
        return batches, self.accelerator.gather(lists).sum()

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, once it is known that evaluations will yield `metric_for_best_model`."""
        check_best_metric(self)
        return super().train(*args, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Draft a model card, also before a push, but not over one that hfcompress wrote."""
        path = Path(str(self.args.output_dir), "README.md")
        if not path.is_file() or "hfcompress" not in (ModelCard.load(path).data.tags or []):
            super().create_model_card(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate, and leave the random numbers of training alone, from which a data loader would draw its seed."""
        with torch.random.fork_rng(devices=[]):
            return super().evaluate(*args, **kwargs)


class RankingDistillationTrainer(RankingTrainer):
    """`RankingTrainer` that learns from a teacher's scores, cached in the column `teacher_scores`.

    Args:
        distillation_loss: Weights of the terms; see `DistillationLoss`.
        *args: As for `RankingTrainer`.
        **kwargs: As for `RankingTrainer`.

    Raises:
        DataError: The training data has no column `teacher_scores`.
    """

    def __init__(self, *args: Any, distillation_loss: DistillationLoss | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.distillation_loss = distillation_loss or DistillationLoss()
        columns = getattr(self.train_dataset, "column_names", None)
        if columns is not None and "teacher_scores" not in columns:
            raise DataError(
                "The training lists have no teacher scores",
                value=columns,
                expected="a column teacher_scores with one raw score for each document",
                remedy="add it with hfcompress.data.lists.with_scores(lists, teacher)",
            )

    def list_losses(self, scores: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """Weighted sum of the distillation terms, shape `(lists,)`."""
        weights, mask = self.distillation_loss, targets["list_mask"]
        loss = torch.zeros(len(mask), device=scores.device)
        if weights.listwise_kl:
            kl = listwise_kl(scores, targets["teacher_scores"], mask, weights.temperature)
            loss = loss + weights.listwise_kl * kl
        for column, terms in (("teacher_scores", TEACHER_TERMS), ("labels", LABEL_TERMS)):
            for name, term in terms.items():
                if weight := getattr(weights, name):  # lists without labels do for the terms of the teacher
                    loss = loss + weight * term(scores, targets[column], mask)
        return loss
