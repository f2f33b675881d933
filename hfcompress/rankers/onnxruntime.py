"""Ranking with an ONNX graph on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from hfcompress.rankers.base import BatchedRanker, RankerOptions


class OnnxRuntimeRanker(BatchedRanker):
    """Scores pairs with an ONNX graph on the CPU; takes the inputs that the graph itself names."""

    def __init__(
        self,
        path: Path,
        tokenizer: PreTrainedTokenizerBase,
        activation: Callable[[np.ndarray], np.ndarray],
        options: RankerOptions | None = None,
        name: str = "onnxruntime",
    ):
        import onnxruntime

        super().__init__(name, tokenizer, activation, options or RankerOptions())
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = self.threads
        settings.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        self.inputs = [node.name for node in self.session.get_inputs()]

    def forward(self, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
        """Yield the logits of each batch."""
        for batch in batches:
            (logits,) = self.session.run(None, {name: batch[name] for name in self.inputs})
            yield logits[:, 0]
