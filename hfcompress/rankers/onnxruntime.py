"""Ranker for ONNX graphs, on ONNX Runtime."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from hfcompress.errors import DeviceError, ModelError
from hfcompress.rankers.base import RankerOptions, raw_logits
from hfcompress.rankers.workers import WorkersRanker
from hfcompress.utils.json_files import require_content

logger = logging.getLogger(__name__)

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
CPU, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"
# Fusions into operators whose CPU kernels are slower than those of the operators they replace (ONNX Runtime 1.32).
SLOW_FUSIONS = ("SkipLayerNormFusion", "BiasGeluFusion")
INT8_OPERATORS = {"MatMulInteger", "DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "QLinearMatMul"}


class OnnxRuntimeRanker(WorkersRanker):
    """Scores pairs with the `.onnx` file at `path`; other arguments are those of `BatchedRanker`.

    On the CPU each thread computes its own batches, since threads that share a batch wait for each other at every
    operator. Other providers compute one batch at a time.

    Raises:
        DeviceError: This build of ONNX Runtime has no such provider, or the provider does not work here.
        ModelError: The graph cannot be opened, or its inputs are not those of a cross-encoder.
    """

    def __init__(
        self,
        path: Path,
        tokenizer: PreTrainedTokenizerBase,
        activation: Callable[[np.ndarray], np.ndarray] = raw_logits,
        options: RankerOptions | None = None,
        name: str = "onnxruntime",
    ):
        # Its telemetry starts a thread at import, for which a forked process waits forever when it ends.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        options = options or RankerOptions()
        self.path, self.provider = path, options.providers[0]
        super().__init__(name, tokenizer, activation, options)
        _require(options.providers, onnxruntime.get_available_providers())
        fusions: tuple[str, ...] = ()
        if options.providers[0] == CPU:
            self.parallel_batches = self.threads
            fusions = SLOW_FUSIONS
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = self.threads // self.parallel_batches
        settings.inter_op_num_threads = 1
        require_content(path)
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), settings, providers=_with_device(options), disabled_optimizers=list(fusions)
            )
        except Exception as error:  # ONNX Runtime's errors have no common base class
            raise _unusable(path, error) from error
        _require(options.providers[:1], self.session.get_providers())  # it falls back to others, without an error
        self.start_workers()
        self.inputs = [node.name for node in self.session.get_inputs()]
        if unknown := sorted(set(self.inputs) - set(INPUTS)):
            raise ModelError(
                "The graph has inputs that no cross-encoder has",
                value=unknown,
                expected=f"inputs among {', '.join(INPUTS)}",
                remedy="export it with hfcompress, or as a sequence-classification model",
            )
        if options.providers[0] != CPU and _is_int8(path):
            logger.warning(
                "%s is an int8 graph for the CPU, and %s computes its operators slowly or moves them to the CPU: use "
                "the fp32 graph (onnx/model.onnx) there",
                path,
                options.providers[0],
            )

    @property
    def on_cpu(self) -> bool:
        """Whether the graph runs on the CPU."""
        return self.provider == CPU

    def after_fork(self) -> None:
        """Sessions on the CPU have no threads of their own, so they still work; other providers do not."""
        super().after_fork()
        if self.provider != CPU:
            self._refusal = f"{self.provider} does not survive a fork"

    def _logits(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        (logits,) = self.session.run(None, {name: batch[name] for name in self.inputs})
        return logits[:, 0]


def _with_device(options: RankerOptions) -> list[str | tuple[str, dict[str, str]]]:
    """The providers, with the number of the GPU that `options.device` names."""
    index = options.device.partition(":")[2]
    return [(name, {"device_id": index}) if index and name == CUDA_PROVIDER else name for name in options.providers]


def _require(wanted: Sequence[str], found: Sequence[str]) -> None:
    if missing := [name for name in wanted if name not in found]:
        raise DeviceError(
            "ONNX Runtime cannot use an execution provider here",
            value=", ".join(missing),
            expected=f"one of {', '.join(found)}",
            remedy="choose one of them; for CUDA, replace onnxruntime by onnxruntime-gpu, and install the CUDA and "
            "cuDNN that it needs (https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html)",
        )


def _is_int8(path: Path) -> bool:
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    return any(node.op_type in INT8_OPERATORS for node in graph.node)


def _unusable(path: Path, error: Exception) -> ModelError:
    found = str(error).splitlines()[0].replace(str(path), path.name)
    copy_data = "copy the external data too, complete and with its original name"
    return ModelError(
        f"The ONNX graph {path} cannot be opened",
        value=found,
        expected="a complete .onnx file, next to its external data if it has any",
        remedy=copy_data if "external" in found.lower() else "copy or export it again",
    )
