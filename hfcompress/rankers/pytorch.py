"""Ranking with the PyTorch model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfcompress.architectures import require_one_score
from hfcompress.rankers.base import BatchedRanker, RankerOptions


class TorchRanker(BatchedRanker):
    """Scores pairs with a sequence-classification model, on the device and in the precision that it has.

    Raises:
        ModelError: The model does not give exactly one score.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        activation: Callable[[np.ndarray], np.ndarray],
        options: RankerOptions | None = None,
        name: str = "torch",
    ):
        super().__init__(name, tokenizer, activation, options or RankerOptions())
        require_one_score(model.config)
        self.model = model
        # Families without segment embeddings either ignore these or do not take them.
        self.takes_segments = "token_type_ids" in tokenizer.model_input_names

    def forward(self, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
        """Yield the logits of each batch."""
        before, training = torch.get_num_threads(), self.model.training
        torch.set_num_threads(self.threads)
        self.model.eval()
        try:
            with torch.inference_mode():
                for batch in batches:
                    if not self.takes_segments:
                        del batch["token_type_ids"]
                    inputs = {name: torch.from_numpy(array).to(self.model.device) for name, array in batch.items()}
                    yield self.model(**inputs).logits[:, 0].float().cpu().numpy()
        finally:
            torch.set_num_threads(before)
            self.model.train(training)
