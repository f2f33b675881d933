"""Trainers whose batches are lists of documents: fine-tuning on labels, and distillation from a teacher's scores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer_utils import TrainOutput

from hfcompress.errors import DataError
from hfcompress.recipe import DistillationLoss, FeatureLoss
from hfcompress.training.arguments import check_precision
from hfcompress.training.attention import attention_to_train
from hfcompress.training.by_length import can_split, part_of, parts_by_length
from hfcompress.training.callbacks import FiguresCallback, check_best_metric
from hfcompress.training.features import FeatureDistillation, check_tokenizers
from hfcompress.training.losses import (
    adr_mse,
    bce,
    by_list,
    infonce,
    lambda_loss,
    listmle,
    listwise_kl,
    listwise_softmax,
    margin_mse,
    mse,
    ranknet,
    symmetric_kl,
)
from hfcompress.training.regularization import adversarial_step, require_dropout, require_hooks

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
        r_drop: Weight of R-Drop (Wu et al., 2021): each pair passes twice, in one batch, with different dropout; the
            mean of both losses counts, and `symmetric_kl` between both scorings of a list. (In the paper it is the sum
            of both losses, so that its alpha is twice this weight.)
        adversarial: Length of the perturbation of FGM; see `adversarial_step`. The second pass has the whole loss.
        *args: As for `Trainer`.
        **kwargs: As for `Trainer`; take `RankingTrainingArguments`, or set `remove_unused_columns` to False.

    Raises:
        ModelError: DeBERTa-v2 or -v3 would be trained in fp16; `r_drop` is set, and the model has no dropout; or what
            is set cannot reach the parts of a model that is compiled or copied to several devices.
        RecipeError: When training begins: no evaluation will yield what `metric_for_best_model` names.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self, *args: Any, label_loss: str = "listwise", r_drop: float = 0.0, adversarial: float = 0.0, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        check_precision(self.model, self.args)
        self.label_loss = LABEL_LOSSES[label_loss]
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, FiguresCallback):
                callback.set_trainer(self)
        self.r_drop, self.adversarial = r_drop, adversarial
        assert self.model is not None
        if r_drop:
            require_dropout(self.model)
        if adversarial:
            require_hooks(self.args, "adversarial")

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
        read = {name: value for name, value in inputs.items() if name not in RANKING_COLUMNS}
        losses, outputs = self.losses_of(model, read, targets)
        # Data parallelism averages gradients over processes, while `num_items_in_batch` counts the lists of all.
        loss = losses.mean() if num_items_in_batch is None else losses.sum() * self.args.world_size / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def losses_of(self, model: nn.Module, inputs: dict[str, Tensor], targets: dict[str, Tensor]) -> tuple[Tensor, Any]:
        """All that counts for each list, shape `(lists,)`, and the model's outputs, in R-Drop those of both passes."""
        passes = 2 if self.r_drop and model.training else 1
        outputs, own = self.read(model, {name: torch.cat([value] * passes) for name, value in inputs.items()})
        mask = targets["list_mask"]
        scores = [by_list(logits, mask) for logits in outputs.logits.float().chunk(passes)]
        losses = torch.stack([self.list_losses(each, targets) for each in scores]).mean(0)
        if passes > 1:
            losses = losses + self.r_drop * symmetric_kl(scores[0], scores[-1], mask)
        if own is not None:
            losses = losses + by_list(own.view(passes, -1).mean(0), mask).sum(1) / mask.sum(1).clamp(min=1)
        return losses, outputs

    def read(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Any, Tensor | None]:
        """The model's outputs for all pairs, and `own_losses` of these; training reads pairs of like length together.

        Lists differ in the length of their documents. Padded to the longest of a batch, most tokens can be padding.
        """
        parts = parts_by_length(inputs["attention_mask"].sum(1)) if model.training and can_split(model) else []
        if len(parts) < 2:
            return self.read_part(model, inputs)
        read = [self.read_part(model, part_of(inputs, places)) for places in parts]
        order = torch.cat(parts).argsort()
        logits = torch.cat([outputs.logits for outputs, _ in read])[order]
        own = [losses for _, losses in read if losses is not None]
        return SequenceClassifierOutput(logits=logits), torch.cat(own)[order] if own else None

    def read_part(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Any, Tensor | None]:
        """The model's outputs, and what each pair adds to the loss by itself, `(pairs,)`, or None."""
        return model(**inputs), None

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """The stock step, or with `adversarial` two of them."""
        step = partial(super().training_step, model, inputs, num_items_in_batch)
        if not self.adversarial:
            return step()
        assert isinstance(self.model, PreTrainedModel)
        return adversarial_step(self.model.get_input_embeddings(), self.adversarial, step)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, Any]:
        """Batches of one optimizer step, and the number of lists in them over all processes."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        lists = torch.tensor(sum(len(batch["list_mask"]) for batch in batches), device=self.args.device)
        return batches, self.accelerator.gather(lists).sum()

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, once it is known that evaluations will yield `metric_for_best_model`."""
        check_best_metric(self)
        with attention_to_train(self.readers(), self.args):
            return super().train(*args, **kwargs)

    def readers(self) -> list[PreTrainedModel]:
        """The models that read each batch."""
        return [self.model] if isinstance(self.model, PreTrainedModel) else []

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
        feature_loss: Weights of what is learnt from inside the teacher; see `FeatureLoss`. It counts in training only.
        teacher: The teacher, if `feature_loss` is given: it reads each batch in eval mode, without gradients, until the
            weights have decayed.
        teacher_tokenizer: Its tokenizer, to check that it is the student's too; without it the numbers of tokens are
            compared.
        *args: As for `RankingTrainer`.
        **kwargs: As for `RankingTrainer`.

    Raises:
        DataError: The training data has no column `teacher_scores`.
        ModelError: One of `feature_loss` and `teacher` is given without the other, or as `FeatureDistillation` says.
    """

    def __init__(
        self,
        *args: Any,
        distillation_loss: DistillationLoss | None = None,
        feature_loss: FeatureLoss | None = None,
        teacher: PreTrainedModel | None = None,
        teacher_tokenizer: PreTrainedTokenizerBase | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.distillation_loss = distillation_loss or DistillationLoss()
        self.features: FeatureDistillation | None = None
        if feature_loss is not None or teacher is not None:
            require_hooks(self.args, "feature_loss")
            tokenizer: Any = getattr(self.data_collator, "tokenizer", None)
            if tokenizer is not None and teacher_tokenizer is not None:
                check_tokenizers(tokenizer, teacher_tokenizer)
            assert isinstance(self.model, PreTrainedModel)
            self.features = FeatureDistillation(feature_loss, self.model, teacher)
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

    def readers(self) -> list[PreTrainedModel]:
        """The student, and the teacher of the features: what is compared is computed alike."""
        return super().readers() + ([self.features.teacher] if self.features else [])

    def read_part(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Any, Tensor | None]:
        """Add the feature losses while they count."""
        share = self.features.share(self.state.global_step, self.state.max_steps) if self.features else 0.0
        if not (self.features and share and model.training):
            return super().read_part(model, inputs)
        assert isinstance(self.model, PreTrainedModel)
        with self.features.watched(self.model) as seen:
            outputs, _ = super().read_part(model, inputs)
        with self.accelerator.autocast():  # the teacher in the student's precision
            return outputs, share * self.features.pair_losses(seen, inputs)
