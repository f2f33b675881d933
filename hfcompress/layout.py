"""Where things are in the folder that a run writes: a repository that five loaders read."""

from __future__ import annotations

ONNX_FP32 = "onnx/model.onnx"
# transformers.js and others read this name for int8; it holds the dynamic int8 graph.
ONNX_INT8 = "onnx/model_quantized.onnx"
ONNX_INT8_STATIC = "onnx/model_qint8_static.onnx"
OPENVINO_FP32 = "openvino/openvino_model.xml"
OPENVINO_INT8 = "openvino/openvino_model_qint8_quantized.xml"

# What a deployment needs beside the weights.
COMMON_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
WORK_FOLDER = ".hfcompress"  # state, teacher, caches: never published

PRUNING_FILE = "pruning.json"  # what was cut, beside a pruned checkpoint
STRUCTURE_FILE = "figures/structure.png"
