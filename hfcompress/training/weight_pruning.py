"""Unstructured and 2:4 magnitude pruning in any `Trainer`, along a cubic schedule."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from hfcompress.errors import RecipeError
from hfcompress.models.sparsity import sparse_modules, sparsify
from hfcompress.recipe.prune import PATTERNS
from hfcompress.training.callbacks import transformer_of
from hfcompress.training.schedule import cubic_share
from hfcompress.training.stateful import StatefulCallback

STAGES = 64  # of the schedule; weights are sorted again at each


class WeightPruningCallback(StatefulCallback):
    """Prunes the smallest weights of the encoder's linear layers to zero while the model trains.

    The sparsity follows the cubic schedule 1 - (1 - t)^3 (Zhu and Gupta, 2017), with t from 0 to 1 between `begin` and
    `end`; if both are equal, it is complete from there on. Zeros are set again after every optimizer step, so every
    evaluation and checkpoint has them. A checkpoint resumes bit-equal; see `StatefulCallback`. The final sparsity is
    also applied to the weights that are loaded when training ends.

    Zeros are stored and multiplied like other numbers. They make compressed files smaller, and speed up runtimes with
    sparse kernels only.

    Args:
        sparsity: Share of zeros in each weight matrix; 0.5 for the pattern `2:4`.
        pattern: `unstructured`, or `2:4`: two of every four consecutive weights of a row.
        begin: Share of all steps at which the schedule begins.
        end: Share of all steps at which it is complete.

    Raises:
        RecipeError: A setting is invalid. When training begins: the resumed checkpoint was made with other settings.
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
        self._modules: dict[str, nn.Linear] = {}
        self._masks: dict[str, Tensor] = {}
        self._share = 0.0

    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"sparsity": self.sparsity, "pattern": self.pattern, "begin": self.begin, "end": self.end}

    def progress(self) -> dict[str, Any]:
        """The pruned share, and the masks of those matrices that have other zeros than the pruned weights."""
        masks = {
            name: _packed(mask)
            for name, mask in self._masks.items()
            if not torch.equal(mask, self._modules[name].weight != 0)
        }
        return {"share": self._share, "masks": masks}

    def share(self, step: int, steps: int) -> float:
        """Share of the final sparsity at an optimizer step, in 64 stages; the first step is 0."""
        return int(cubic_share(step, steps, self.begin, self.end) * STAGES) / STAGES

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Reset the masks, or restore those of a resumed checkpoint."""
        saved = self.begin_training(state, kwargs["model"])
        self._modules = sparse_modules(transformer_of(kwargs["model"]))
        self._masks, self._share = {}, 0.0
        if saved is None or not saved["share"]:
            return
        self._share = saved["share"]
        for name, module in self._modules.items():
            packed = saved["masks"].get(name)
            self._masks[name] = module.weight != 0 if packed is None else _unpacked(packed, module.weight)

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
        for name, mask in self._masks.items():
            self._modules[name].weight.data.mul_(mask)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Apply the final sparsity, also if training ended early or an earlier checkpoint was best."""
        self.end_training()
        sparsify(transformer_of(kwargs["model"]), self.pattern, self.sparsity)
        self._modules, self._masks = {}, {}


def _packed(mask: Tensor) -> str:
    """A mask as compressed bits in base64."""
    return base64.b64encode(zlib.compress(np.packbits(mask.cpu().numpy()).tobytes())).decode("ascii")


def _unpacked(packed: str, weight: Tensor) -> Tensor:
    """The mask of a weight from `_packed`."""
    bits = np.frombuffer(zlib.decompress(base64.b64decode(packed)), dtype=np.uint8)
    mask = np.unpackbits(bits, count=weight.numel()).astype(bool)
    return torch.from_numpy(mask).view(weight.shape).to(weight.device)
