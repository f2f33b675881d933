"""Ranker for PyTorch models."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfcompress.models.architectures import require_one_score
from hfcompress.models.hooks import evaluation_mode
from hfcompress.models.wrappers import unwrapped
from hfcompress.rankers.base import BatchedRanker, RankerOptions, raw_logits
from hfcompress.rankers.fork import record_use, used_before_fork
from hfcompress.utils.device import CPU, moved, synchronize
from hfcompress.utils.log import warn_once

logger = logging.getLogger(__name__)

_locks: dict[int, Lock] = {}  # by process, since a lock may be held at the time of a fork


class TorchRanker(BatchedRanker):
    """Scores pairs with a sequence-classification model, on its device and in its precision.

    Raises:
        ModelError: The model does not output a single score.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        activation: Callable[[np.ndarray], np.ndarray] = raw_logits,
        options: RankerOptions | None = None,
        name: str = "torch",
    ):
        if not isinstance(getattr(model, "_orig_mod", model), PreTrainedModel):  # a compiled model scores as it is
            model = unwrapped(model)
        require_one_score(model.config)
        self.model = model
        record_use("torch")
        super().__init__(name, tokenizer, activation, options)
        # Families without segment embeddings ignore token types or do not accept them.
        self.takes_segments = "token_type_ids" in tokenizer.model_input_names

    def after_fork(self) -> None:
        """PyTorch refuses to use a GPU in a forked process."""
        super().after_fork()
        if self.model.device.type != "cpu":
            self._refusal = f"PyTorch cannot use {self.model.device} after a fork"

    @property
    def on_cpu(self) -> bool:
        """Whether the model is on the CPU."""
        return self.model.device.type == CPU

    def synchronize(self) -> None:
        """Wait for the device of the model."""
        synchronize(self.model.device)

    def forward(self, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
        """Yield the logits of each batch; callers in other threads compute theirs in between.

        An accelerator is asked for all batches before its scores are read, all at once: it never waits for the CPU.
        """
        self.check_process()
        if self.model.device.type == "cpu":
            for batch in batches:
                yield self._logits(batch).numpy()
            return
        logits = [self._logits(batch) for batch in batches]
        if logits:
            yield from np.split(torch.cat(logits).cpu().numpy(), np.cumsum([len(each) for each in logits])[:-1])

    def _logits(self, batch: dict[str, np.ndarray]) -> torch.Tensor:
        """Logits of a batch in fp32, on the device of the model, shape `(pairs,)`."""
        names = [name for name in batch if name != "token_type_ids" or self.takes_segments]
        inputs = moved({name: torch.from_numpy(batch[name]) for name in names}, self.model.device)
        with _one_batch_at_a_time(self.threads), evaluation_mode(self.model), torch.inference_mode():
            return self.model(**inputs).logits[:, 0].float()


@contextmanager
def _one_batch_at_a_time(threads: int) -> Iterator[None]:
    """Compute one batch of all rankers of the process within the block, with this number of threads.

    More callers would not be faster, since the threads compute each batch together.
    """
    if threads > 1 and used_before_fork("torch"):
        warn_once(
            logger,
            f"This process was forked, so PyTorch ranks with one thread instead of {threads}: a thread pool does not "
            "survive a fork. For more threads, load the ranker in a process that was not forked",
        )
        threads = 1
    with _locks.setdefault(os.getpid(), Lock()):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
