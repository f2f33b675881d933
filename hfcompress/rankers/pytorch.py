"""Ranker for PyTorch models."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfcompress.models.architectures import require_one_score
from hfcompress.models.hooks import evaluation_mode
from hfcompress.rankers.base import BatchedRanker, RankerOptions, raw_logits


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
        super().__init__(name, tokenizer, activation, options)
        require_one_score(model.config)
        self.model = model
        # Families without segment embeddings ignore token types or do not accept them.
        self.takes_segments = "token_type_ids" in tokenizer.model_input_names

    def forward(self, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
        """Yield the logits of each batch."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with evaluation_mode(self.model), torch.inference_mode():
                for batch in batches:
                    if not self.takes_segments:
                        del batch["token_type_ids"]
                    inputs = {name: torch.from_numpy(array).to(self.model.device) for name, array in batch.items()}
                    yield self.model(**inputs).logits[:, 0].float().cpu().numpy()
        finally:
            torch.set_num_threads(before)
