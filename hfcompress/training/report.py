"""What is left of a model while it trains: figures and a heat map in the trainer's log."""

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

from hfcompress.errors import DataError
from hfcompress.evaluation.pruned import plan_summary
from hfcompress.figures import structure
from hfcompress.latency import time_rankers
from hfcompress.plan import PruningPlan
from hfcompress.rankers.base import Pair
from hfcompress.surgery import apply_plan, current_plan, encoder_flops
from hfcompress.training.callbacks import FiguresCallback, raw_ranker, transformer_of, without_autocast
from hfcompress.training.gradual import GradualPruningCallback

PREFIX = "compression/"
RUNS_FOLDER = "runs"  # of transformers' TensorBoardCallback, in output_dir


class CompressionReportCallback(FiguresCallback):
    """Logs what is left of the model when training begins, at every evaluation, and when training ends.

    - `compression/parameters`: parameters that are alive, embeddings and head included.
    - `compression/sparsity`: share of the parameters at the start that are gone.
    - `compression/encoder_flops`: share of the multiply-adds at the start that are alive, in the encoder's linear
      layers.
    - `compression/heads`, `compression/ffn`: attention heads and FFN neurons that are alive, in all layers together.
    - `compression/docs_per_second`: measured in PyTorch on this machine, tokenization included, where `pairs` are
      given. It is that of the model as it runs, and closed gates save no time: before surgery it hardly moves.

    Where `report_to` holds `tensorboard`, the figures and a heat map of heads and FFN neurons go there too: into the
    run of transformers' own callback if `set_trainer` was called, else into a run `compression` within it. Training
    itself is not disturbed: a model trains to the same bits with and without this callback.

    Args:
        gradual: The callback that closes gates in the same trainer; name it before this one. Without it the model's
            own structure is reported.
        pairs: Texts like those to be ranked, a few dozen of them, for the measured speed.
        tokenizer: Tokenizer of the model, for the measured speed.
        rounds: Rounds of which the median counts; one more comes first.
        writer: A `SummaryWriter` of your own for figures and heat map, whatever `report_to` holds.

    Raises:
        DataError: Only one of `pairs` and `tokenizer` is given, or `pairs` is empty.
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
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Log the start, to which shares refer."""
        self._start = self._drawn = None
        self._report(args, state, model)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Log what is left now."""
        self._report(args, state, model)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Log what is left in the end."""
        self._report(args, state, model)
        if self._writer is not None and self._given is None:
            self._writer.close()
            self._writer = None

    def _report(self, args: TrainingArguments, state: TrainerState, model: nn.Module | None) -> None:
        assert model is not None
        if not state.is_world_process_zero:
            return
        inner = transformer_of(model)
        with _modes_kept(model):
            plan = self.gradual.alive(inner) if self.gradual else current_plan(inner)
            figures = {f"{PREFIX}{name}": value for name, value in self._figures(inner, plan).items()}
            self.log(state, figures)
            self._to_tensorboard(args, state, figures, inner, plan)

    def _figures(self, model: PreTrainedModel, plan: PruningPlan) -> dict[str, float]:
        parameters, flops = _parameters(model, plan), encoder_flops(model.config, plan)
        self._start = self._start or (parameters, flops)
        figures = {
            "parameters": parameters,
            "sparsity": 1 - parameters / self._start[0],
            "encoder_flops": flops / self._start[1],
            "heads": sum(len(layer.heads) for layer in plan.layers),
            "ffn": sum(len(layer.ffn) for layer in plan.layers),
        }
        if self.pairs is not None and self.tokenizer is not None:
            with without_autocast(model):
                seconds = time_rankers([raw_ranker(model, self.tokenizer)], self.pairs, self.rounds)[0]
            figures["docs_per_second"] = 1 / seconds
        return figures

    def _to_tensorboard(
        self,
        args: TrainingArguments,
        state: TrainerState,
        figures: dict[str, float],
        model: PreTrainedModel,
        plan: PruningPlan,
    ) -> None:
        trainers = self._trainers_writer()
        writer = self._given or trainers or self._own_writer(args)
        if writer is None:
            return
        if writer is not trainers:  # where it is, the trainer's log has brought them there
            for name, value in figures.items():
                writer.add_scalar(name, value, state.global_step)
        if plan != self._drawn:
            image = imread(io.BytesIO(structure(plan_summary(model.config, plan))))
            writer.add_image(f"{PREFIX}structure", image, state.global_step, dataformats="HWC")
            self._drawn = plan
        writer.flush()

    def _trainers_writer(self) -> Any:
        """The writer of the trainer's own callback; None where there is none, or no trainer is known."""
        callbacks = self._trainer.callback_handler.callbacks if self._trainer else []
        return next((each.tb_writer for each in callbacks if isinstance(each, TensorBoardCallback)), None)

    def _own_writer(self, args: TrainingArguments) -> Any:
        if self._writer is None and "tensorboard" in (args.report_to or []):
            from torch.utils.tensorboard import SummaryWriter

            # TensorBoard follows one file of a folder, so this run has a folder of its own in that of the trainer's.
            self._writer = SummaryWriter(str(_logging_folder(args) / PREFIX.rstrip("/")))
        return self._writer


def _logging_folder(args: TrainingArguments) -> Path:
    """Where transformers' TensorBoardCallback writes, which begins before the callbacks that a user adds."""
    if folder := os.getenv("TENSORBOARD_LOGGING_DIR"):
        return Path(folder).expanduser()
    runs = Path(str(args.output_dir), RUNS_FOLDER)
    return max(runs.iterdir(), key=lambda path: path.stat().st_mtime, default=runs) if runs.is_dir() else runs


def _parameters(model: PreTrainedModel, plan: PruningPlan) -> int:
    """Parameters of a model once it is cut by a plan, counted on a copy without weights: it draws no random numbers."""
    if plan != current_plan(model):
        with torch.device("meta"):
            model = apply_plan(type(model)(copy.deepcopy(model.config)), plan)
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    """Leave the mode of every module as it was."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
