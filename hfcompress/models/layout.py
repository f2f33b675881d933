"""Paths in the folder that a run writes, which is a repository for several loaders."""

from __future__ import annotations

import fnmatch

ONNX_FP32 = "onnx/model.onnx"
# The dynamic int8 graph, under the name that transformers.js and others look for.
ONNX_INT8 = "onnx/model_quantized.onnx"
ONNX_INT8_STATIC = "onnx/model_qint8_static.onnx"
OPENVINO_FP32 = "openvino/openvino_model.xml"
OPENVINO_INT8 = "openvino/openvino_model_qint8_quantized.xml"
PACKED_FOLDER = "packed"  # low-bit weights, read only by hfcompress

# Files that a deployment needs besides the weights.
COMMON_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
WORK_FOLDER = ".hfcompress"  # state, teacher, caches: never published

# Weights with this prefix mark checkpoints of a training that cannot resume without the callback named after it.
CALLBACK_MARKER = "resume_with_callback."

PRUNING_FILE = "pruning.json"  # summary of the pruning, beside a pruned checkpoint
STRUCTURE_FILE = "figures/structure.png"
RELIABILITY_FILE = "figures/reliability.png"
CARD_FIGURES = (STRUCTURE_FILE, RELIABILITY_FILE)  # of those that not every card has

CARD_FILE = "README.md"
RECIPE_FILE = "recipe.yaml"  # of `compress`: the recipe that it ran
TRIALS_FILE = "trials.json"  # of `compress`: all its trials
TRIALS_FIGURE = "figures/trials.png"
ALTERNATIVE_FOLDER = "alternative"  # of `compress`: a model that would pass where the result did not; never published
FORMER_TRIALS_FILES = ("tried.json", "figures/front.png")  # names of both in earlier versions

# Of a modular cross-encoder of sentence-transformers: files of the modules behind its encoder.
HEAD_FILES = (
    *(f"[0-9]*_{kind}/config.json" for kind in ("Pooling", "Dense", "LayerNorm", "Dropout")),
    *(f"[0-9]*_{kind}/model.safetensors" for kind in ("Dense", "LayerNorm")),
)

# All files that a run writes, as patterns of paths in the repository; publishing refuses all others.
GENERATED = (
    "config.json", "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json",
    "modeling_hfcompress.py", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "chat_template.jinja", "spm.model", "sentencepiece.bpe.model",
    "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json",
    *HEAD_FILES,
    "onnx/*.onnx", "onnx/*.onnx_data", "onnx/*.onnx.data", "openvino/*.xml", "openvino/*.bin", "packed/*.safetensors",
    CARD_FILE, "report.json", "hfcompress_config.json", RECIPE_FILE, TRIALS_FILE, "tried.json",
    "figures/*.png", "figures/*.svg",
)  # fmt: skip
# Files that the owner may add.
ADDED = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt")
# Vocabularies contain any text that the tokenizer was trained on, including paths.
VOCABULARIES = ("tokenizer.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt")
# All files of a tokenizer.
TOKENIZER_FILES = (
    *VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "spm.model", "sentencepiece.bpe.model",
)  # fmt: skip


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path of the repository, with slashes, matches a pattern; `*` does not match slashes."""
    return any(path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
