"""Callbacks for any `Trainer`: those of transformers, hfcompress and sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError, ModelError, RecipeError
from hfcompress.evaluation.metrics import METRICS, split_quality
from hfcompress.rankers.pytorch import TorchRanker

PREFIX = "eval_"


class LoggingCallback(TrainerCallback):
    """Base class of callbacks that log metrics.

    Metrics are always added to `state.log_history`. The loggers of `report_to` receive only what the trainer logs, and
    callbacks have no reference to their trainer, so call `set_trainer` once for them. hfcompress's trainers do so.
    """

    _trainer: Trainer | None = None

    def set_trainer(self, trainer: Trainer) -> None:
        """Log through this trainer."""
        self._trainer = trainer

    def log(self, state: TrainerState, metrics: dict[str, float]) -> None:
        """Add an entry to the log."""
        if self._trainer is not None:
            self._trainer.log(dict(metrics))
        else:
            state.log_history.append({**metrics, "step": state.global_step})


class RankingEvalCallback(LoggingCallback):
    """Computes ranking metrics at every evaluation: `eval_ndcg@10`, `eval_mrr@10`, `eval_map` and `eval_recall@10`.

    They are added to the metrics of the evaluation, so `metric_for_best_model="eval_ndcg@10"` works, and to
    `state.log_history`. Pass this callback before an `EarlyStoppingCallback`, which needs them. Scores are computed in
    the precision of the weights, also if training is in mixed precision. Each of several processes scores the whole
    split, so that all choose the same checkpoint.

    Args:
        data: Data whose candidates are ranked.
        tokenizer: Tokenizer of the model; its `model_max_length` is the longest input.
        split: The split to rank; not the one of the final evaluation.

    Raises:
        DataError: The split is missing, or has no relevant document.
        RecipeError: When training begins: `metric_for_best_model` is a ranking metric that is not computed, or
            `greater_is_better` is False for it.
    """

    def __init__(self, data: RankingData, tokenizer: PreTrainedTokenizerBase, split: str = "dev") -> None:
        data.split(split)
        if split == "test":
            raise DataError(
                "Checkpoints would be chosen on the test split",
                value=split,
                expected="a split other than that of the final evaluation",
                remedy="use dev, or make a dev split of a part of train",
            )
        self.data, self.tokenizer, self.split = data, tokenizer, split

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that `metric_for_best_model` is a metric that is computed."""
        wanted = args.metric_for_best_model
        name = (wanted or "").removeprefix(PREFIX)
        if "@" not in name and name not in METRICS:  # a loss, or a metric of another callback or compute_metrics
            return
        if name not in METRICS or args.greater_is_better is False:
            raise RecipeError(
                "Checkpoints cannot be chosen by metric_for_best_model",
                value=f"{wanted}, greater_is_better={args.greater_is_better}",
                expected=f"one of {', '.join(PREFIX + each for each in METRICS)}; for all of them, greater is better",
                remedy="correct the name, and leave greater_is_better out",
            )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add the ranking metrics to those of the evaluation."""
        inner = transformer_of(kwargs["model"])
        with without_autocast(inner):
            quality = split_quality(TorchRanker(inner, self.tokenizer), self.data, self.split)
        found = {f"{PREFIX}{name}": value for name, value in quality.items()}
        if (metrics := kwargs.get("metrics")) is not None:
            metrics.update(found)
        self.log(state, found)


def check_best_metric(trainer: Trainer) -> None:
    """Check that evaluations will compute `metric_for_best_model`, unless callbacks of other packages may do so.

    Raises:
        RecipeError: Neither the evaluation itself nor a callback computes it.
    """
    wanted = trainer.args.metric_for_best_model
    callbacks = trainer.callback_handler.callbacks
    if wanted is None or trainer.args.eval_strategy == "no" or trainer.compute_metrics or _any_foreign(callbacks):
        return
    sets = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {"": None}
    available = [
        f"{name}_{metric}".lstrip("_") for name in sets for metric in ("loss", "runtime", "samples_per_second")
    ]
    if any(isinstance(callback, RankingEvalCallback) for callback in callbacks):
        available += METRICS
    if wanted.removeprefix(PREFIX) not in available:
        raise RecipeError(
            "No evaluation computes metric_for_best_model",
            value=wanted,
            expected=f"one of {', '.join(PREFIX + name for name in available)}",
            remedy="add RankingEvalCallback(data, tokenizer) to the callbacks, or name another metric",
        )


def _any_foreign(callbacks: Sequence[TrainerCallback]) -> bool:
    """Whether a callback of another package may add metrics to an evaluation."""
    return any(
        type(callback).on_evaluate is not TrainerCallback.on_evaluate
        and type(callback).__module__.partition(".")[0] not in ("transformers", "hfcompress")
        for callback in callbacks
    )


@contextmanager
def without_autocast(model: PreTrainedModel) -> Iterator[None]:
    """Compute in the precision of the weights, without the autocast that accelerate has wrapped around the model.

    Scores in bf16 have about three digits, which causes ties between documents that the model distinguishes.
    """
    wrapped = model.forward
    plain = getattr(model, "_original_forward", None)
    if plain is not None:
        setattr(model, "forward", plain)  # noqa: B010
    try:
        yield
    finally:
        if plain is not None:
            setattr(model, "forward", wrapped)  # noqa: B010


def transformer_of(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a wrapper, such as sentence-transformers' `CrossEncoder`.

    Raises:
        ModelError: There is none.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise ModelError(
        "The trainer's model contains no transformers model",
        value=type(model).__name__,
        expected="a sequence-classification model, or a CrossEncoder",
        remedy="train one of these",
    )
