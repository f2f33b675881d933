"""Compression report of a training: size, MACs and speed in the trainer's log, and a heat map in TensorBoard."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from matplotlib.image import imread
from torch import nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback

from hfcompress.card.figures import structure
from hfcompress.errors import DataError, RecipeError
from hfcompress.models.macs import encoder_macs
from hfcompress.models.plan import PruningPlan
from hfcompress.models.surgery import apply_plan, current_plan
from hfcompress.pruning.costs.latency import time_rankers
from hfcompress.pruning.summary import plan_summary
from hfcompress.rankers.base import Pair
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.training.callbacks import LoggingCallback, transformer_of, without_autocast
from hfcompress.training.gradual import GradualPruningCallback

PREFIX = "compression/"
RUNS_FOLDER = "runs"  # of transformers' TensorBoardCallback, in output_dir


class CompressionReportCallback(LoggingCallback):
    """Logs the remaining size of the model when training begins, at every evaluation, and when training ends.

    - `compression/parameters`: remaining parameters, including embeddings and head.
    - `compression/sparsity`: pruned share of the parameters.
    - `compression/encoder_macs`: remaining share of the MACs in the encoder's linear layers.
    - `compression/heads`, `compression/ffn`: remaining attention heads and FFN neurons, over all layers.
    - `compression/docs_per_second`: throughput in PyTorch on this machine, tokenization included, if `pairs` are
      given. Closed gates save no time, so it hardly changes before the model is pruned at the end.

    Shares are relative to the start of the training. If `report_to` contains `tensorboard`, these values and a heat map
    of heads and FFN neurons are written there: into the run of transformers' callback if `set_trainer` was called, else
    into a run `compression` inside its folder. The callback does not change the training: the weights are bit-equal
    with and without it.

    Args:
        gradual: The gradual pruning callback of the same trainer; pass it to the trainer before this one. Without it,
            the structure of the model itself is reported.
        pairs: A few dozen pairs like those to be ranked, for the throughput.
        tokenizer: Tokenizer of the model, for the throughput.
        rounds: Number of timed rounds, of which the median is logged; one more warms up.
        writer: A `SummaryWriter` for values and heat map, independent of `report_to`.

    Raises:
        DataError: Only one of `pairs` and `tokenizer` is given, or `pairs` is empty.
        RecipeError: When training begins: the trainer does not have the callback `gradual`.
    """

    def __init__(
        self,
        gradual: GradualPruningCallback | None = None,
        pairs: Sequence[Pair] | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        rounds: int = 3,
        writer: Any = None,
    ) -> None:
        if (pairs is None) != (tokenizer is None) or (pairs is not None and not len(pairs)):
            raise DataError(
                "Speed cannot be measured",
                value=f"{len(pairs or [])} pairs, {'a' if tokenizer else 'no'} tokenizer",
                expected="pairs of query and document and the model's tokenizer, or neither",
                remedy="give both, or leave out both",
            )
        self.gradual, self.rounds = gradual, rounds
        self.pairs, self.tokenizer = pairs, tokenizer
        self._writer = self._given = writer
        self._start: tuple[int, int] | None = None
        self._drawn: PruningPlan | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the model at the start, the reference of the shares."""
        self._start = self._drawn = None
        self._report(args, state, kwargs["model"])

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that the trainer has the gradual pruning callback whose model is reported."""
        if self.gradual is not None and not self.gradual.is_active:
            raise RecipeError(
                "The compression report follows a gradual pruning callback that the trainer does not have",
                value=f"restore_callback_states_from_checkpoint={args.restore_callback_states_from_checkpoint}, which "
                "replaces callbacks if it is True",
                expected="the callback passed as gradual, among the callbacks of the trainer",
                remedy="pass it to the trainer too, and leave out restore_callback_states_from_checkpoint: "
                "hfcompress's callbacks restore their state without it",
            )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log the remaining model."""
        self._report(args, state, kwargs["model"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the final model."""
        self._report(args, state, kwargs["model"])
        if self._writer is not None and self._given is None:
            self._writer.close()
            self._writer = None

    def _report(self, args: TrainingArguments, state: TrainerState, model: nn.Module) -> None:
        if not state.is_world_process_zero:
            return
        inner = transformer_of(model)
        with _modes_kept(model):
            plan = self.gradual.remaining_plan(inner) if self.gradual else current_plan(inner)
            values = {f"{PREFIX}{name}": value for name, value in self._values(inner, plan).items()}
            self.log(state, values)
            self._to_tensorboard(args, state, values, inner, plan)

    def _values(self, model: PreTrainedModel, plan: PruningPlan) -> dict[str, float]:
        parameters, macs = _parameters(model, plan), encoder_macs(model.config, plan)
        self._start = self._start or (parameters, macs)
        values = {
            "parameters": parameters,
            "sparsity": 1 - parameters / self._start[0],
            "encoder_macs": macs / self._start[1],
            "heads": sum(len(layer.heads) for layer in plan.layers),
            "ffn": sum(len(layer.ffn) for layer in plan.layers),
        }
        if self.pairs is not None and self.tokenizer is not None:
            with without_autocast(model):
                seconds = time_rankers([TorchRanker(model, self.tokenizer)], self.pairs, self.rounds)[0]
            values["docs_per_second"] = 1 / seconds
        return values

    def _to_tensorboard(
        self,
        args: TrainingArguments,
        state: TrainerState,
        values: dict[str, float],
        model: PreTrainedModel,
        plan: PruningPlan,
    ) -> None:
        trainers = self._trainers_writer()
        writer = self._given or trainers or self._own_writer(args)
        if writer is None:
            return
        if writer is not trainers:  # the trainer's log writes the values there
            for name, value in values.items():
                writer.add_scalar(name, value, state.global_step)
        if plan != self._drawn:
            image = imread(io.BytesIO(structure(plan_summary(model.config, plan))))
            writer.add_image(f"{PREFIX}structure", image, state.global_step, dataformats="HWC")
            self._drawn = plan
        writer.flush()

    def _trainers_writer(self) -> Any:
        """The writer of the trainer's TensorBoard callback; None without one, or without a trainer."""
        callbacks = self._trainer.callback_handler.callbacks if self._trainer else []
        return next((each.tb_writer for each in callbacks if isinstance(each, TensorBoardCallback)), None)

    def _own_writer(self, args: TrainingArguments) -> Any:
        if self._writer is None and "tensorboard" in (args.report_to or []):
            from torch.utils.tensorboard import SummaryWriter

            # TensorBoard reads one file per folder, so this run has its own folder inside that of the trainer.
            self._writer = SummaryWriter(str(_logging_folder(args) / PREFIX.rstrip("/")))
        return self._writer


def _logging_folder(args: TrainingArguments) -> Path:
    """Folder of transformers' TensorBoardCallback, which begins before the callbacks of the user."""
    if folder := os.getenv("TENSORBOARD_LOGGING_DIR"):
        return Path(folder).expanduser()
    runs = Path(str(args.output_dir), RUNS_FOLDER)
    return max(runs.iterdir(), key=lambda path: path.stat().st_mtime, default=runs) if runs.is_dir() else runs


def _parameters(model: PreTrainedModel, plan: PruningPlan) -> int:
    """Parameters of a model after pruning to a plan, from a copy on the meta device: no random numbers are drawn."""
    if plan != current_plan(model):
        with torch.device("meta"):
            model = apply_plan(type(model)(copy.deepcopy(model.config)), plan)
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    """Restore the mode of every module after the block."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
