"""Shared parts of all exports: example inputs, dynamic shapes, and a model that is ready for tracing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.export import Dim
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfcompress.errors import ModelError
from hfcompress.models.hooks import evaluation_mode
from hfcompress.models.positions import position_limit
from hfcompress.quantization.first_token import first_token_only


def example_inputs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Two pairs of nine tokens, with the inputs that the tokenizer returns."""
    shape = (2, 9)
    inputs = {
        "input_ids": torch.full(shape, (model.config.pad_token_id or 0) + 1),
        "attention_mask": torch.ones(shape, dtype=torch.long),
    }
    if "token_type_ids" in tokenizer.model_input_names:
        inputs["token_type_ids"] = torch.zeros(shape, dtype=torch.long)
    return inputs


def dynamic_shapes(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Dynamic batch size, and dynamic length up to the model's positions."""
    batch, sequence = Dim("batch"), Dim("sequence", max=position_limit(model.config))
    return {name: {0: batch, 1: sequence} for name in inputs}


@contextmanager
def ready_for_export(model: PreTrainedModel, first_token: bool) -> Iterator[PreTrainedModel]:
    """Within the block, the model is in evaluation mode on the CPU; it goes back to its device.

    Args:
        model: A sequence-classification model.
        first_token: Compute the last layer for the first token only, if the model's head reads nothing else.

    Raises:
        ModelError: The weights are quantized already.
    """
    _require_plain_weights(model)
    device = model.device
    with evaluation_mode(model), first_token_only(model) if first_token else nullcontext():
        nn.Module.to(model, "cpu")
        try:
            yield model
        finally:
            nn.Module.to(model, device)


def _require_plain_weights(model: PreTrainedModel) -> None:
    """Check that no layer is a quantized one of torch or torchao, which exporters cannot trace."""
    parts: list[torch.nn.Module | torch.Tensor] = [*model.modules(), *model.parameters()]
    found = sorted({f"{type(part).__module__}.{type(part).__name__}" for part in parts if _is_quantized(part)})
    if found or getattr(model.config, "quantization_config", None):
        raise ModelError(
            "The model to export is quantized already",
            value=", ".join(found) or "config.quantization_config",
            expected="weights in fp32, fp16 or bf16: a graph is quantized after its export",
            remedy="export the model before its quantization, and choose int8 in quantize.artifacts",
        )


def _is_quantized(part: torch.nn.Module | torch.Tensor) -> bool:
    packages = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized", "torchao.")
    return type(part).__module__.startswith(packages) or (isinstance(part, torch.Tensor) and part.is_quantized)
