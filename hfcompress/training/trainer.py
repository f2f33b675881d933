"""Trainers on batches of ranking lists: fine-tuning on labels, and distillation from a teacher's scores."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer_utils import TrainOutput

from hfcompress.data.lists import RANKING_COLUMNS, model_inputs
from hfcompress.errors import DataError, RecipeError
from hfcompress.losses import (
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
from hfcompress.models.load import load_tokenizer
from hfcompress.models.wrappers import shared_weights
from hfcompress.recipe import DistillationLoss, FeatureLoss
from hfcompress.training.arguments import check_precision
from hfcompress.training.attention import training_attention
from hfcompress.training.callbacks import LoggingCallback, check_best_metric
from hfcompress.training.features import FeatureDistillation, check_tokenizers
from hfcompress.training.length_groups import can_split, length_groups, select_pairs
from hfcompress.training.ready import optimizer_of_shared_weights, ready_to_train
from hfcompress.training.regularization import adversarial_step, require_dropout, require_hooks
from hfcompress.training.stateful import check_callbacks
from hfcompress.utils.machine import limited_torch_threads

logger = logging.getLogger(__name__)

COMPARED_LISTS = 64  # of the training data, on which tokenizers are compared
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
LABEL_LOSSES: dict[str, Loss] = {"listwise": listwise_softmax, "pointwise": bce}
# Terms of `DistillationLoss` on the teacher's scores and on labels, without `listwise_kl`, which has a temperature.
TEACHER_TERMS: dict[str, Loss] = {
    "margin_mse": margin_mse, "ranknet": ranknet, "adr_mse": adr_mse, "listmle": listmle, "mse": mse,
}  # fmt: skip
LABEL_TERMS: dict[str, Loss] = {"hard": ranknet, "lambda_ndcg": lambda_loss, "infonce": infonce, "bce": bce}


class RankingTrainer(Trainer):
    """`Trainer` for cross-encoders with a loss on relevance labels; batches come from `RankingCollator`.

    The loss is the mean over all lists of an optimizer step. Gradient accumulation and several processes therefore give
    the gradient of one large batch, even if the last batch is smaller.

    Args:
        label_loss: `listwise` or `pointwise`.
        r_drop: Weight of R-Drop (Wu et al., 2021): each pair is scored twice in one batch with different dropout. The
            loss is the mean of both losses plus the weighted `symmetric_kl` between both scorings of a list. (The
            paper adds both losses, so its alpha is twice this weight.)
        adversarial: Length of the FGM perturbation; see `adversarial_step`. The second pass uses the whole loss.
        model: The model. Wrappers of `torch.compile` and of data parallelism are removed, inside it too (for a compiled
            training set `torch_compile` in the arguments), and layers that share weights get their own.
        *args: As for `Trainer`.
        **kwargs: As for `Trainer`. Use `RankingTrainingArguments`, or set `remove_unused_columns` to False.

    Raises:
        ModelError: DeBERTa-v2 or -v3 would be trained in fp16; `r_drop` is set for a model without dropout; or an
            option needs hooks, and the model is compiled or copied to several devices. Or layers share weights, and an
            optimizer was made before.
        RecipeError: There is no such `label_loss`; or, when training begins, no evaluation computes
            `metric_for_best_model`, or the resumed checkpoint was made with a callback that is missing.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module | None = None,
        *args: Any,
        label_loss: str = "listwise",
        r_drop: float = 0.0,
        adversarial: float = 0.0,
        **kwargs: Any,
    ):
        shared = model is not None and bool(shared_weights(model))
        super().__init__(ready_to_train(model) if model is not None else None, *args, **kwargs)
        if shared and self.optimizer is not None:
            raise optimizer_of_shared_weights()
        check_precision(self.model, self.args)
        if label_loss not in LABEL_LOSSES:
            raise RecipeError(
                "There is no such label_loss",
                value=label_loss,
                expected=" or ".join(LABEL_LOSSES),
                remedy="correct label_loss",
            )
        self.label_loss = LABEL_LOSSES[label_loss]
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, LoggingCallback):
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
        losses, outputs = self.batch_losses(model, model_inputs(inputs), targets)
        # Data parallelism averages gradients over processes, but `num_items_in_batch` counts the lists of all.
        loss = losses.mean() if num_items_in_batch is None else losses.sum() * self.args.world_size / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def batch_losses(
        self, model: nn.Module, inputs: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> tuple[Tensor, Any]:
        """Total loss of each list, shape `(lists,)`, and the model's outputs; with R-Drop those of both passes."""
        passes = 2 if self.r_drop and model.training else 1
        repeated = {name: torch.cat([value] * passes) for name, value in inputs.items()}
        outputs, pair_losses = self.forward_pairs(model, repeated)
        mask = targets["list_mask"]
        scores = [by_list(logits, mask) for logits in outputs.logits.float().chunk(passes)]
        losses = torch.stack([self.list_losses(each, targets) for each in scores]).mean(0)
        if passes > 1:
            losses = losses + self.r_drop * symmetric_kl(scores[0], scores[-1], mask)
        if pair_losses is not None:
            losses = losses + by_list(pair_losses.view(passes, -1).mean(0), mask).sum(1) / mask.sum(1).clamp(min=1)
        return losses, outputs

    def forward_pairs(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Any, Tensor | None]:
        """Outputs and pair losses of all pairs of a batch; training runs a forward pass for each length group.

        Documents of a list differ in length. Padded to the longest pair of a batch, most tokens can be padding.
        """
        groups = length_groups(inputs["attention_mask"].sum(1)) if model.training and can_split(model) else []
        if len(groups) < 2:
            return self.forward_group(model, inputs)
        results = [self.forward_group(model, select_pairs(inputs, indices)) for indices in groups]
        order = torch.cat(groups).argsort()
        logits = torch.cat([outputs.logits for outputs, _ in results])[order]
        pair_losses = [losses for _, losses in results if losses is not None]
        return SequenceClassifierOutput(logits=logits), torch.cat(pair_losses)[order] if pair_losses else None

    def forward_group(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Any, Tensor | None]:
        """The model's outputs, and the additional loss of each pair, `(pairs,)`, or None."""
        return model(**inputs), None

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One step of `Trainer`; with `adversarial` two."""
        step = partial(super().training_step, model, inputs, num_items_in_batch)
        if not self.adversarial:
            return step()
        assert isinstance(self.model, PreTrainedModel)
        return adversarial_step(self.model.get_input_embeddings(), self.adversarial, step)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, Any]:
        """Batches of one optimizer step, and the number of their lists over all processes."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        lists = torch.tensor(sum(len(batch["list_mask"]) for batch in batches), device=self.args.device)
        return batches, self.accelerator.gather(lists).sum()

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, after checks of `metric_for_best_model` and of the callbacks that a checkpoint needs."""
        check_best_metric(self)
        check_callbacks(self, resume_from_checkpoint)
        with limited_torch_threads(), training_attention(self.forward_models(), self.args):
            return super().train(resume_from_checkpoint, *args, **kwargs)

    def call_model_init(self, *args: Any, **kwargs: Any) -> nn.Module:
        """The model of `model_init`, ready to train."""
        return ready_to_train(super().call_model_init(*args, **kwargs))

    def forward_models(self) -> list[PreTrainedModel]:
        """The models that run a forward pass in training."""
        return [self.model] if isinstance(self.model, PreTrainedModel) else []

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Draft a model card, also before a push, but do not overwrite one by hfcompress."""
        path = Path(str(self.args.output_dir), "README.md")
        if not path.is_file() or "hfcompress" not in (ModelCard.load(path).data.tags or []):
            super().create_model_card(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate without changing the random state of training, from which a data loader draws its seed."""
        with torch.random.fork_rng(devices=[]):
            return super().evaluate(*args, **kwargs)


class RankingDistillationTrainer(RankingTrainer):
    """`RankingTrainer` that distills a teacher's scores, which are in the column `teacher_scores`.

    Args:
        distillation_loss: Weights of the terms; see `DistillationLoss`.
        feature_loss: Weights of feature distillation; see `FeatureLoss`. Evaluations do not include it.
        teacher: The teacher, if `feature_loss` is given. It runs on each batch in eval mode, without gradients, until
            the weights have decayed.
        teacher_tokenizer: Its tokenizer, to check before training that it gives the same ids as the student's; by
            default that in the folder that the teacher was loaded from. Without any, the vocabulary sizes are compared.
        *args: As for `RankingTrainer`.
        **kwargs: As for `RankingTrainer`.

    Raises:
        DataError: The training data has no column `teacher_scores`.
        ModelError: Only one of `feature_loss` and `teacher` is given, or a reason of `FeatureDistillation`.
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
            self._check_tokenizers(teacher, teacher_tokenizer)
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

    def _check_tokenizers(self, teacher: PreTrainedModel | None, given: PreTrainedTokenizerBase | None) -> None:
        """Compare the tokenizers of student and teacher, on probe texts and on the first training lists."""
        ours: Any = getattr(self.data_collator, "tokenizer", None) or self.processing_class
        folder = getattr(teacher, "name_or_path", "")
        beside = bool(folder) and Path(folder, "tokenizer.json").is_file()
        theirs = given or (load_tokenizer(folder) if beside else None)
        if ours is None or theirs is None:
            logger.warning("The tokenizers of student and teacher are not compared: pass teacher_tokenizer")
            return
        lists: Any = self.train_dataset if isinstance(self.train_dataset, Dataset) else ()
        rows = islice(lists, COMPARED_LISTS)
        pairs = [(row["query"], document) for row in rows if "documents" in row for document in row["documents"]]
        check_tokenizers(ours, theirs, pairs)

    def list_losses(self, scores: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """Weighted sum of the distillation terms, shape `(lists,)`."""
        weights, mask = self.distillation_loss, targets["list_mask"]
        loss = torch.zeros(len(mask), device=scores.device)
        if weights.listwise_kl:
            kl = listwise_kl(scores, targets["teacher_scores"], mask, weights.temperature)
            loss = loss + weights.listwise_kl * kl
        for column, terms in (("teacher_scores", TEACHER_TERMS), ("labels", LABEL_TERMS)):
            for name, term in terms.items():
                if weight := getattr(weights, name):  # lists without labels suffice for the terms of the teacher
                    loss = loss + weight * term(scores, targets[column], mask)
        return loss

    def forward_models(self) -> list[PreTrainedModel]:
        """The student, and the teacher of feature distillation, so that both use the same attention."""
        return super().forward_models() + ([self.features.teacher] if self.features else [])

    def forward_group(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Any, Tensor | None]:
        """Add the feature losses until their weights have decayed."""
        share = self.features.share(self.state.global_step, self.state.max_steps) if self.features else 0.0
        if not (self.features and share and model.training):
            return super().forward_group(model, inputs)
        assert isinstance(self.model, PreTrainedModel)
        with self.features.collect(self.model) as features:
            outputs, _ = super().forward_group(model, inputs)
        with self.accelerator.autocast():  # the teacher in the student's precision
            return outputs, share * self.features.pair_losses(features, inputs)
