"""Magnitude pruning of single weights inside any `Trainer`: zeros grow along a cubic schedule and are held."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfcompress.errors import RecipeError
from hfcompress.recipe.prune import PATTERNS
from hfcompress.sparsity import sparse_modules, sparsify
from hfcompress.training.callbacks import transformer_of
from hfcompress.training.schedule import cubic_share

STAGES = 64  # of the schedule; weights are put in order anew at each


class WeightPruningCallback(TrainerCallback):
    """Sets the smallest weights of the encoder's linear layers to zero while the model trains, and holds them there.

    The share that is zero follows the cubic schedule 1 - (1 - t)^3 (Zhu and Gupta, 2017), with t running from 0 to 1
    between `begin` and `end`; with `end` equal to `begin` all of it is zero from there on. Zeros are set again after
    every optimizer step, so every evaluation and every checkpoint has them; a checkpoint resumes bit-equal, since what
    is zero goes first. Whatever weights are loaded when training ends are left with all zeros.

    Zeros are stored and multiplied like other numbers. They make a file smaller where it is compressed, and speed up
    only what has kernels for them.

    Args:
        sparsity: Share of the weights of each matrix that goes; 0.5 in the pattern `2:4`.
        pattern: `unstructured`, or `2:4`: two of every four neighbours in a row.
        begin: Share of all steps after which the schedule begins.
        end: Share of all steps after which it is complete.

    Raises:
        RecipeError: A setting does not fit.
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
                "This is no schedule of pruning weights",
                value=f"from {begin} to {end} of all steps",
                expected="0 <= begin <= end <= 1",
                remedy="correct begin and end",
            )
        self.sparsity, self.pattern = sparsity, pattern
        self.begin, self.end = begin, end
        self._masks: dict[str, Tensor] = {}
        self._share = 0.0

    def share(self, step: int, steps: int) -> float:
        """Share of what goes that is zero in an optimizer step, the first of which is 0; it grows in 64 stages."""
        return int(cubic_share(step, steps, self.begin, self.end) * STAGES) / STAGES

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin with no zeros of one's own."""
        self._masks, self._share = {}, 0.0

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Set to zero what is due."""
        assert model is not None
        share = self.share(state.global_step, state.max_steps)
        if share > self._share:
            self._share = share
            self._masks = sparsify(transformer_of(model), self.pattern, self.sparsity, share)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Undo what the optimizer did to zeros."""
        assert model is not None
        modules = sparse_modules(transformer_of(model))
        for name, mask in self._masks.items():
            modules[name].weight.data.mul_(mask)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Leave the model with all zeros, also where training ended early or an earlier checkpoint was best."""
        assert model is not None
        sparsify(transformer_of(model), self.pattern, self.sparsity)
        self._masks = {}
