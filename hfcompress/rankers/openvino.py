"""Ranking with an OpenVINO graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedTokenizerBase

from hfcompress.errors import MissingExtraError
from hfcompress.rankers.base import BatchedRanker, RankerOptions

if TYPE_CHECKING:
    import openvino


class OpenVinoRanker(BatchedRanker):
    """Scores pairs with an OpenVINO graph on the CPU: one stream a thread, batches in flight on all of them.

    The CPU plug-in compiles kernels for each shape that it meets. So batches come in few shapes. What is not int8 is
    computed in fp32: in bf16, the default on CPUs that have it, OpenVINO 2026.4 gives wrong scores for some pairs
    of an int8 graph in small batches (scripts/openvino_precision.py).

    Args:
        path: The `.xml` file.
        tokenizer: Fast tokenizer.
        activation: Applied to the logits by `rank`.
        options: How to use the machine.
        name: Name in reports.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """

    few_shapes = True

    def __init__(
        self,
        path: Path,
        tokenizer: PreTrainedTokenizerBase,
        activation: Callable[[np.ndarray], np.ndarray],
        options: RankerOptions | None = None,
        name: str = "openvino",
    ):
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("openvino", "openvino", "Ranking with an OpenVINO graph") from error

        super().__init__(name, tokenizer, activation, options or RankerOptions())
        self.parallel_batches = self.threads
        self.model = openvino.Core().compile_model(
            str(path),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": self.threads,
                "NUM_STREAMS": self.threads,
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )
        self.inputs = [node.any_name for node in self.model.inputs]
        self.requests = [self.model.create_infer_request() for _ in range(self.threads)]

    def forward(self, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
        """Yield the logits of each batch, with as many batches in flight as there are threads."""
        running: list = []
        free = list(self.requests)
        for batch in batches:
            if not free:
                free.append(running.pop(0))
                yield self._result(free[-1])
            request = free.pop(0)
            request.start_async({name: batch[name] for name in self.inputs})
            running.append(request)
        for request in running:
            yield self._result(request)

    @staticmethod
    def _result(request: openvino.InferRequest) -> np.ndarray:
        request.wait()
        return request.get_output_tensor(0).data[:, 0].copy()
