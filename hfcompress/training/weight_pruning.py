"""Unstructured and 2:4 magnitude pruning in any `Trainer`, along a cubic schedule."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfcompress.errors import RecipeError
from hfcompress.models.sparsity import sparse_modules, sparsify
from hfcompress.recipe.prune import PATTERNS
from hfcompress.training.callbacks import transformer_of
from hfcompress.training.schedule import cubic_share

STAGES = 64  # of the schedule; weights are sorted again at each


class WeightPruningCallback(TrainerCallback):
    """Prunes the smallest weights of the encoder's linear layers to zero while the model trains.

    The sparsity follows the cubic schedule 1 - (1 - t)^3 (Zhu and Gupta, 2017), with t from 0 to 1 between `begin` and
    `end`; if both are equal, it is complete from there on. Zeros are set again after every optimizer step, so every
    evaluation and checkpoint has them. A checkpoint resumes bit-equal, since weights that are zero are pruned first.
    The final sparsity is also applied to the weights that are loaded when training ends.

    Zeros are stored and multiplied like other numbers. They make compressed files smaller, and speed up runtimes with
    sparse kernels only.

    Args:
        sparsity: Share of zeros in each weight matrix; 0.5 for the pattern `2:4`.
        pattern: `unstructured`, or `2:4`: two of every four consecutive weights of a row.
        begin: Share of all steps at which the schedule begins.
        end: Share of all steps at which it is complete.

    Raises:
        RecipeError: A setting is invalid.
    """

    def __init__(
        self, sparsity: float = 0.5, pattern: str = "unstructured", begin: float = 0.0, end: float = 0.5
    ) -> None:
        if pattern not in PATTERNS or not 0 < sparsity < 1 or (pattern == "2:4" and sparsity != 0.5):
            raise RecipeError(
                "Weights cannot be pruned like this",
                value=f"pattern {pattern}, sparsity {sparsity}",
                expected=f"a pattern among {', '.join(PATTERNS)}, and a share between 0 and 1 (0.5 in 2:4)",
                remedy="correct pattern and sparsity",
            )
        if not 0 <= begin <= end <= 1:
            raise RecipeError(
                "begin and end are no schedule of weight pruning",
                value=f"from {begin} to {end} of all steps",
                expected="0 <= begin <= end <= 1",
                remedy="correct begin and end",
            )
        self.sparsity, self.pattern = sparsity, pattern
        self.begin, self.end = begin, end
        self._masks: dict[str, Tensor] = {}
        self._share = 0.0

    def share(self, step: int, steps: int) -> float:
        """Share of the final sparsity at an optimizer step, in 64 stages; the first step is 0."""
        return int(cubic_share(step, steps, self.begin, self.end) * STAGES) / STAGES

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Reset the masks."""
        self._masks, self._share = {}, 0.0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Prune weights according to the schedule."""
        share = self.share(state.global_step, state.max_steps)
        if share > self._share:
            self._share = share
            self._masks = sparsify(transformer_of(kwargs["model"]), self.pattern, self.sparsity, share)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Set pruned weights to zero again after the optimizer step."""
        modules = sparse_modules(transformer_of(kwargs["model"]))
        for name, mask in self._masks.items():
            modules[name].weight.data.mul_(mask)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Apply the final sparsity, also if training ended early or an earlier checkpoint was best."""
        sparsify(transformer_of(kwargs["model"]), self.pattern, self.sparsity)
        self._masks = {}
