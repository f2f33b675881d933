"""The bar of a training: what it works on, how far it is, and how good the model was on dev when last looked at."""

from __future__ import annotations

from typing import Any

from tqdm.std import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfcompress.progress import progress_bar


class TrainingBarCallback(TrainerCallback):
    """Shows the steps of a training, in place of transformers' bar, which has no title and prints every log.

    Args:
        title: What the bar says.
    """

    def __init__(self, title: str = "training"):
        self.title = title
        self._bar: tqdm | None = None
        self._figures: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the bar at the step from which a resumed training goes on."""
        self._bar = progress_bar(
            total=state.max_steps,
            initial=state.global_step,
            desc=self.title,
            unit="step",
            disable=not state.is_world_process_zero,
            leave=False,
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar on."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show loss and dev nDCG@10 behind the bar."""
        shown = {"loss": "loss", "eval_ndcg@10": "dev ndcg@10"}
        self._figures |= {name: f"{logs[key]:.4g}" for key, name in shown.items() if logs and key in logs}
        if self._bar is not None:
            self._bar.set_postfix(self._figures, refresh=False)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
