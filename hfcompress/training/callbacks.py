"""Callbacks for any `Trainer`: transformers' own, hfcompress's, and that of sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
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


class FiguresCallback(TrainerCallback):
    """A callback that has figures for the trainer's log.

    They stand in `state.log_history` in any case. The loggers that `report_to` names hear of what a trainer itself logs
    and no callback reaches a trainer, so for them call `set_trainer` once; hfcompress's trainers do so themselves.
    """

    _trainer: Trainer | None = None

    def set_trainer(self, trainer: Trainer) -> None:
        """Log through this trainer from now on."""
        self._trainer = trainer

    def log(self, state: TrainerState, figures: dict[str, float]) -> None:
        """Add an entry to the log."""
        if self._trainer is not None:
            self._trainer.log(dict(figures))
        else:
            state.log_history.append({**figures, "step": state.global_step})


class RankingEvalCallback(FiguresCallback):
    """Measures ranking quality at every evaluation: `eval_ndcg@10` and the other metrics of a report.

    The figures join those of the evaluation, so `metric_for_best_model="eval_ndcg@10"` works, and stand in
    `state.log_history`. Name this callback before an `EarlyStoppingCallback`, which looks at what is there when its
    turn comes. Scores are computed in the precision of the weights, also where training is in mixed precision. With
    several processes each scores the whole split, so that all agree on what is best.

    Args:
        data: Data whose candidates are ranked.
        tokenizer: Tokenizer of the model; its `model_max_length` is the longest input.
        split: The split to rank; never the one that the final figures come from.

    Raises:
        DataError: The split is missing, or has no relevant document.
        RecipeError: When training begins: `metric_for_best_model` names a ranking metric that does not exist, or one
            of which less would count as better.
    """

    def __init__(self, data: RankingData, tokenizer: PreTrainedTokenizerBase, split: str = "dev") -> None:
        data.split(split)
        if split == "test":
            raise DataError(
                "Checkpoints would be chosen on the test split",
                value=split,
                expected="a split that the final figures do not come from",
                remedy="use dev, or name a part of train dev",
            )
        self.data, self.tokenizer, self.split = data, tokenizer, split

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that the metric by which checkpoints are chosen is one that evaluations yield."""
        wanted = args.metric_for_best_model
        name = (wanted or "").removeprefix(PREFIX)
        if "@" not in name and name not in METRICS:  # a loss, or what another callback or compute_metrics yields
            return
        if name not in METRICS or args.greater_is_better is False:
            raise RecipeError(
                "Checkpoints cannot be chosen by metric_for_best_model",
                value=f"{wanted}, greater_is_better={args.greater_is_better}",
                expected=f"one of {', '.join(PREFIX + each for each in METRICS)}, of all of which more is better",
                remedy="correct the name, and leave greater_is_better out",
            )

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the figures to those of the evaluation."""
        assert model is not None
        inner = transformer_of(model)
        with without_autocast(inner):
            quality = split_quality(raw_ranker(inner, self.tokenizer), self.data, self.split)
        figures = {f"{PREFIX}{name}": value for name, value in quality.items()}
        if metrics is not None:
            metrics.update(figures)
        self.log(state, figures)


def check_best_metric(trainer: Trainer) -> None:
    """Check that evaluations will yield the metric by which checkpoints are chosen, as far as that can be known.

    Raises:
        RecipeError: `metric_for_best_model` names what neither the evaluation itself nor a callback yields.
    """
    wanted = trainer.args.metric_for_best_model
    callbacks = trainer.callback_handler.callbacks
    if wanted is None or trainer.args.eval_strategy == "no" or trainer.compute_metrics or _foreign(callbacks):
        return
    sets = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {"": None}
    yielded = [f"{name}_{figure}".lstrip("_") for name in sets for figure in ("loss", "runtime", "samples_per_second")]
    if any(isinstance(callback, RankingEvalCallback) for callback in callbacks):
        yielded += METRICS
    if wanted.removeprefix(PREFIX) not in yielded:
        raise RecipeError(
            "No evaluation will yield metric_for_best_model",
            value=wanted,
            expected=f"one of {', '.join(PREFIX + name for name in yielded)}",
            remedy="add RankingEvalCallback(data, tokenizer) to the callbacks, or name another metric",
        )


def _foreign(callbacks: Sequence[TrainerCallback]) -> bool:
    """Whether a callback that is neither transformers' nor hfcompress's may add figures to an evaluation."""
    return any(
        type(callback).on_evaluate is not TrainerCallback.on_evaluate
        and type(callback).__module__.partition(".")[0] not in ("transformers", "hfcompress")
        for callback in callbacks
    )


@contextmanager
def without_autocast(model: PreTrainedModel) -> Iterator[None]:
    """Compute in the precision of the weights where accelerate has put autocast around the model for training.

    Scores in bf16 have about three digits, which puts documents level that the model tells apart.
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


def raw_ranker(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> TorchRanker:
    """A model as it is now, as a ranker of raw scores."""
    return TorchRanker(model, tokenizer, lambda logits: logits)


def transformer_of(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a wrapper, such as sentence-transformers' `CrossEncoder`.

    Raises:
        ModelError: There is none.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise ModelError(
        "The trainer's model holds no transformers model",
        value=type(model).__name__,
        expected="a sequence-classification model, or a CrossEncoder",
        remedy="train one of these",
    )


def checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Where a trainer keeps the checkpoint of the step that it is at."""
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
