"""Where things are in the folder that a run writes: a repository that five loaders read."""

from __future__ import annotations

import fnmatch

ONNX_FP32 = "onnx/model.onnx"
# transformers.js and others read this name for int8; it holds the dynamic int8 graph.
ONNX_INT8 = "onnx/model_quantized.onnx"
ONNX_INT8_STATIC = "onnx/model_qint8_static.onnx"
OPENVINO_FP32 = "openvino/openvino_model.xml"
OPENVINO_INT8 = "openvino/openvino_model_qint8_quantized.xml"
PACKED_FOLDER = "packed"  # weights of few bits, for hfcompress alone

# What a deployment needs beside the weights.
COMMON_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
WORK_FOLDER = ".hfcompress"  # state, teacher, caches: never published

PRUNING_FILE = "pruning.json"  # what was cut, beside a pruned checkpoint
STRUCTURE_FILE = "figures/structure.png"

CARD_FILE = "README.md"
RECIPE_FILE = "recipe.yaml"  # of `compress`: what it ran in the end
TRIED_FILE = "tried.json"  # and all that it tried before
FRONT_FILE = "figures/front.png"

# Everything that a run makes, as patterns of paths in the repository; publishing refuses the rest.
GENERATED = (
    "config.json", "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json",
    "modeling_hfcompress.py", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "chat_template.jinja", "spm.model", "sentencepiece.bpe.model",
    "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json",
    "onnx/*.onnx", "onnx/*.onnx_data", "onnx/*.onnx.data", "openvino/*.xml", "openvino/*.bin", "packed/*.safetensors",
    CARD_FILE, "report.json", "hfcompress_config.json", RECIPE_FILE, TRIED_FILE, "figures/*.png", "figures/*.svg",
)  # fmt: skip
# What its owner may add.
ADDED = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt")
# Vocabularies hold whatever the tokenizer was trained on, paths too.
VOCABULARIES = ("tokenizer.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt")
# All that a tokenizer can be made of.
TOKENIZER_FILES = (
    *VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "spm.model", "sentencepiece.bpe.model",
)  # fmt: skip


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path of the repository, with slashes, is one of the patterns; `*` stays within a folder."""
    return any(path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
