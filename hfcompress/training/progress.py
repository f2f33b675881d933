"""Progress bar of a training, with loss and dev nDCG@10."""

from __future__ import annotations

from typing import Any

from tqdm.std import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfcompress.utils.progress import progress_bar


class TrainingBarCallback(TrainerCallback):
    """Progress bar over the steps of a training. Replaces transformers' bar, which has no title and prints every log.

    Args:
        title: Title of the bar.
    """

    def __init__(self, title: str = "training"):
        self.title = title
        self._bar: tqdm | None = None
        self._figures: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the bar at the current step, which is not 0 in a resumed training."""
        self._bar = progress_bar(
            total=state.max_steps,
            initial=state.global_step,
            desc=self.title,
            unit="step",
            disable=not state.is_world_process_zero,
            leave=False,
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance the bar."""
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
        """Show loss and dev nDCG@10 next to the bar."""
        shown = {"loss": "loss", "eval_ndcg@10": "dev ndcg@10"}
        self._figures |= {name: f"{logs[key]:.4g}" for key, name in shown.items() if logs and key in logs}
        if self._bar is not None:
            self._bar.set_postfix(self._figures, refresh=False)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
