"""State of callbacks in the checkpoints of any `Trainer`, and checks that a resumed training has its callbacks."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import EarlyStoppingCallback, ExportableState
from transformers.trainer_utils import get_last_checkpoint

from hfcompress.errors import RecipeError
from hfcompress.models.layout import CALLBACK_MARKER
from hfcompress.training.ready import require_plain

logger = logging.getLogger(__name__)

PROGRESS = "progress"  # the key that tells a state of these callbacks from those of other packages


class StatefulCallback(TrainerCallback, ExportableState, ABC):
    """Base class of callbacks that resume bit-equal from the checkpoints of any `Trainer`.

    Settings and state are stored in `trainer_state.json`, and restored whether or not
    `restore_callback_states_from_checkpoint` is set. A resumed training must have the same callbacks with the same
    settings. Without them hfcompress's trainers raise an error, and transformers' `Trainer` logs an unexpected weight
    `resume_with_callback.` followed by the name of the class.

    Subclasses define `settings`, and `progress` if they have any, and call `begin_training` in `on_train_begin` and
    `end_training` in `on_train_end`.
    """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor, as JSON values."""

    def progress(self) -> dict[str, Any]:
        """What must be known to resume, as JSON values, apart from settings, step and weights."""
        return {}

    def state(self) -> dict[str, Any]:
        """The state that transformers stores in a checkpoint."""
        return {"args": self.settings(), "attributes": {}, PROGRESS: self.progress()}

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check the model, and accept checkpoints that need this callback."""
        require_plain(kwargs["model"])
        self._mark(kwargs["model"], saving=False)

    def begin_training(self, state: TrainerState, model: nn.Module) -> dict[str, Any] | None:
        """Mark the checkpoints of this training, and return the progress in the one that it resumes from.

        Args:
            state: State of the trainer.
            model: Its model.

        Returns:
            None at the start of a training.

        Raises:
            ModelError: The model is wrapped or compiled, or has layers that share weights.
            RecipeError: The trainer has two callbacks of this class, or the checkpoint was made with other settings.
        """
        require_plain(model)
        name, states = type(self).__name__, _states(state)
        saved = states.get(name)
        states.setdefault(name, self.state())  # the trainer updates existing entries only
        if isinstance(saved, list):
            raise RecipeError(
                f"A training cannot have several callbacks of the class {name}",
                value=len(saved),
                expected="one",
                remedy="pass one of them to the trainer",
            )
        progress = (saved or {}).get(PROGRESS) if state.global_step else None
        if progress is not None:
            self._check_settings(states[name]["args"])
        elif state.global_step:
            logger.warning(
                f"The checkpoint of step {state.global_step} has no state of {name}: it was made without this callback "
                "or by an earlier version, so the training will not continue exactly as it would have"
            )
        self._mark(model, saving=True)
        return progress

    def end_training(self) -> None:
        """Leave the model's weights without marks."""
        self._marks().close()

    def _check_settings(self, saved: dict[str, Any]) -> None:
        own = json.loads(json.dumps(self.settings()))
        if changed := [name for name in own if own[name] != saved.get(name)]:
            raise RecipeError(
                f"The checkpoint was made with other settings of {type(self).__name__}",
                value=", ".join(f"{name}={_short(own[name])}" for name in changed),
                expected=", ".join(f"{name}={_short(saved.get(name))}" for name in changed),
                remedy="resume with the settings that the training began with (trainer_state.json of the checkpoint "
                "has them under stateful_callbacks), or start again in another output_dir",
            )

    def _mark(self, model: nn.Module, saving: bool) -> None:
        """Add a mark to the weights of checkpoints, and remove it when they are loaded again.

        A trainer that resumes without this callback does not remove it, and reports it as an unexpected weight.
        """
        marks = self._marks()
        marks.close()
        if not isinstance(model, PreTrainedModel):  # sentence-transformers opens checkpoints by another way
            return
        name = f"{CALLBACK_MARKER}{type(self).__name__}"
        marks.callback(model.register_load_state_dict_pre_hook(partial(_remove_mark, name)).remove)
        if saving:
            marks.callback(model.register_state_dict_post_hook(partial(_add_mark, name)).remove)

    def _marks(self) -> ExitStack:
        return vars(self).setdefault("_mark_hooks", ExitStack())


class EarlyStopping(EarlyStoppingCallback):
    """`EarlyStoppingCallback` that resumes with the evaluations it has counted. Arguments are those of that class."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the number of evaluations without improvement, and stop at once if it is reached."""
        super().on_train_begin(args, state, control, **kwargs)
        saved = _states(state).setdefault(type(self).__name__, self.state())
        if state.global_step:
            self.early_stopping_patience_counter = saved["attributes"]["early_stopping_patience_counter"]
            control.should_training_stop = self.early_stopping_patience_counter >= self.early_stopping_patience


def check_callbacks(trainer: Trainer, checkpoint: str | bool | None) -> None:
    """Check that a trainer has the callbacks which the checkpoint that it will resume from needs.

    Args:
        trainer: The trainer.
        checkpoint: As for `Trainer.train`: a folder, True for the last one in `output_dir`, or None.

    Raises:
        RecipeError: A callback is missing.
    """
    folder = get_last_checkpoint(str(trainer.args.output_dir)) if checkpoint is True else checkpoint
    path = Path(str(folder)) / TRAINER_STATE_NAME
    if not folder or not path.is_file():
        return
    saved = _states(TrainerState.load_from_json(str(path)))
    needed = [name for name, each in saved.items() if isinstance(each, dict) and PROGRESS in each]
    own = {type(callback).__name__ for callback in trainer.callback_handler.callbacks}
    if missing := [name for name in needed if name not in own]:
        raise RecipeError(
            "The checkpoint was made with callbacks that this trainer does not have",
            value=f"callbacks {', '.join(sorted(own))}",
            expected=f"also {', '.join(missing)}, without which the model would not be compressed",
            remedy=f"pass {' and '.join(missing)} with the settings of the interrupted training",
        )


def _states(state: TrainerState) -> dict[str, Any]:
    """States of callbacks by the names of their classes, as `TrainerState` holds them after it is made."""
    states: Any = state.stateful_callbacks
    return states


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _add_mark(name: str, _module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    state[f"{prefix}{name}"] = torch.zeros(1)


def _remove_mark(name: str, _module: nn.Module, state: dict[str, Any], prefix: str, *_loading: Any) -> None:
    state.pop(f"{prefix}{name}", None)
