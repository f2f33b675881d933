"""The report of a run with a pico model."""

from __future__ import annotations

from typing import Any

from report_samples import example_artifact, example_delta, example_report

from hfcompress.report.report import RunReport


def run_report(**changes: Any) -> RunReport:
    delta = example_delta(0.001, "non-inferior")
    artifacts = [
        example_artifact("student-torch", "torch", 2.0, delta, path="model.safetensors"),
        example_artifact("student-onnx-int8", "onnxruntime", 4.0, delta, path="onnx/model_quantized.onnx"),
    ]
    return example_report(
        artifacts=artifacts, teacher=example_artifact("teacher", "torch", 1.0, None, path="org/teacher"), **changes
    )
