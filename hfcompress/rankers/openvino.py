"""Ranker for OpenVINO graphs."""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from hfcompress.errors import MissingExtraError, ModelError
from hfcompress.rankers.base import RankerOptions, raw_logits
from hfcompress.rankers.fork import record_use, used_before_fork
from hfcompress.rankers.workers import WorkersRanker
from hfcompress.utils.json_files import require_content
from hfcompress.utils.openvino_core import openvino_core

_first = threading.Lock()
_computed = threading.Event()


class OpenVinoRanker(WorkersRanker):
    """Scores pairs with the `.xml` file at `path` on the CPU; other arguments are those of `BatchedRanker`.

    Each thread has a stream, and each stream a batch. The CPU plug-in compiles kernels for each new shape, so batches
    have few shapes. Operators that are not int8 run in fp32: in bf16, the default on CPUs that support it, OpenVINO
    2026.4 computes wrong scores for some pairs of an int8 graph in small batches (scripts/openvino_precision.py).

    Raises:
        MissingExtraError: OpenVINO is not installed.
        ModelError: The graph or its weights are damaged.
    """

    few_shapes = True

    def __init__(
        self,
        path: Path,
        tokenizer: PreTrainedTokenizerBase,
        activation: Callable[[np.ndarray], np.ndarray] = raw_logits,
        options: RankerOptions | None = None,
        name: str = "openvino",
    ):
        try:
            core = openvino_core()
        except ImportError as error:
            raise MissingExtraError("openvino", "openvino", "Ranking with an OpenVINO graph") from error

        self._opened: tuple = ()  # first: a fork may come before the rest
        super().__init__(name, tokenizer, activation, options)
        self.path = path
        self.parallel_batches = self.threads
        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": self.threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        for part in (path, path.with_suffix(".bin")):
            require_content(part)
        self.start_workers()
        if used_before_fork("openvino"):
            self._refuse()
            return
        record_use("openvino")
        try:
            self.model = core.compile_model(str(path), "CPU", settings)
        except RuntimeError as error:  # of every fault that OpenVINO finds in a graph
            raise _unusable(path, error) from error
        self.inputs = [node.any_name for node in self.model.inputs]
        self.requests = deque(self.model.create_infer_request() for _ in range(self.threads))
        self._opened = self.model, *self.requests

    def after_fork(self) -> None:
        """OpenVINO waits for threads that do not exist in a forked process."""
        super().after_fork()
        self._refuse()
        # Their destructors wait for these threads too, at the latest when the process ends: never run them.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._opened))

    def _refuse(self) -> None:
        self._refusal = "OpenVINO was used before the fork, and its threads do not exist here"

    def _logits(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        with _alone_at_first():
            request = self.requests.pop()  # there are as many as workers
            try:
                request.infer({name: batch[name] for name in self.inputs})
                return request.get_output_tensor(0).data[:, 0].copy()
            finally:
                self.requests.append(request)


@contextmanager
def _alone_at_first() -> Iterator[None]:
    """Until a batch was computed in this process, one thread computes at a time.

    The first access to the data of a tensor, made by two threads at once, is a deadlock in OpenVINO's Python bindings
    (2026.4.1): one waits for the other with Python's global lock in its hands.
    """
    if _computed.is_set():
        yield
        return
    with _first:
        yield
    _computed.set()


def _unusable(path: Path, error: RuntimeError) -> ModelError:
    # The first lines name the places in OpenVINO's source that the error passed through.
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")]
    return ModelError(
        f"The OpenVINO graph {path} cannot be opened",
        value=lines[0] if lines else str(error),
        expected=f"a complete .xml file, with its weights in {path.with_suffix('.bin').name}",
        remedy="copy both files again, or export the model again",
    )
