"""OpenVINO export, and int8 quantization with NNCF."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfcompress.errors import MissingExtraError
from hfcompress.models.wrappers import unwrapped
from hfcompress.quantization.config import OpenVINOQuantizationConfig, require_calibration
from hfcompress.quantization.export import dynamic_shapes, example_inputs, ready_for_export
from hfcompress.utils.openvino_core import openvino_core
from hfcompress.utils.quiet import quiet

if TYPE_CHECKING:
    import openvino


def is_available() -> bool:
    """Whether the `openvino` extra is installed."""
    return all(importlib.util.find_spec(package) for package in ("openvino", "nncf"))


def require_openvino() -> None:
    """Check that the `openvino` extra is installed.

    Raises:
        MissingExtraError: It is not.
    """
    if not is_available():
        raise MissingExtraError("openvino and nncf", "openvino", "OpenVINO int8")


def export_openvino(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, first_token: bool = True
) -> openvino.Model:
    """Export to OpenVINO in fp32 with dynamic batch size and length; arguments are those of `export_onnx`.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    model = unwrapped(model)
    require_openvino()
    from transformers.exporters import OpenVINOConfig, OpenVINOExporter

    inputs = example_inputs(model, tokenizer)
    config = OpenVINOConfig(dynamic_shapes=dynamic_shapes(model, inputs))
    with ready_for_export(model, first_token), quiet():
        return OpenVINOExporter().export(model, inputs, config).program


def save_openvino(graph: openvino.Model, path: Path) -> Path:
    """Write `.xml` and `.bin`, each atomically."""
    import openvino

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".part-{path.name}")
    openvino.save_model(graph, str(temporary), compress_to_fp16=False)
    os.replace(temporary.with_suffix(".bin"), path.with_suffix(".bin"))
    os.replace(temporary, path)
    return path


def quantize(
    graph: openvino.Model, config: OpenVINOQuantizationConfig, calibration: Sequence[dict[str, torch.Tensor]]
) -> openvino.Model:
    """Quantize an exported graph to int8 with NNCF's transformer preset.

    Args:
        graph: Result of `export_openvino`, which may be changed.
        config: Settings.
        calibration: Batches of model inputs.

    Raises:
        DataError: There are no calibration batches.
    """
    require_calibration(config, calibration)
    openvino_core()  # below those that NNCF makes and deletes
    import nncf
    from transformers.exporters import ExportFormat, NNCFOpenVINOQuantizer, NNCFQuantizationConfig

    settings = NNCFQuantizationConfig(
        subset_size=len(calibration),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=config.smooth_quant_alpha)
        ),
    )
    with quiet():
        return NNCFOpenVINOQuantizer(settings, list(calibration)).quantize(graph, {}, ExportFormat.OPENVINO)
