"""ONNX graphs that can be read and compute nothing, in place of a model's."""

from __future__ import annotations

from onnx import helper


def stub_graph(text: str = "") -> bytes:
    """The content of an `.onnx` file with a text in it."""
    return helper.make_model(helper.make_graph([], "stub", [], [], doc_string=text)).SerializeToString()
