"""Check the weights of a checkpoint: their files, and whether they fit the model."""

from __future__ import annotations

import fnmatch
import logging
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PretrainedConfig, PreTrainedModel

from hfcompress.errors import ModelError
from hfcompress.models.layout import CALLBACK_MARKER
from hfcompress.models.modeling_hfcompress import CONFIG_KEY
from hfcompress.utils.json_files import damaged, one_line, read_object, require_content
from hfcompress.utils.log import warn_once

logger = logging.getLogger(__name__)

INDEX_FILE = "model.safetensors.index.json"
WRAPPER_PREFIXES = ("_orig_mod.", "module.")  # of torch.compile and of data parallelism
# What the model classes of transformers raise for a config from which no model can be built.
BUILD_FAULTS = (ValueError, TypeError, AttributeError, KeyError, AssertionError, ArithmeticError, ImportError)
_LATER_LAYER = re.compile(r"\.[1-9]\d*\.")  # in the name of a weight
# Weights of a pooler and of pre-training heads, which a cross-encoder of the same family does not use.
UNUSED_WEIGHTS = (
    "*pooler.*", "cls.*", "lm_head.*", "discriminator_predictions.*", "generator_predictions.*", "generator_lm_head.*",
    "vocab_transform.*", "vocab_layer_norm.*", "vocab_projector.*", "lm_predictions.*", "mask_predictions.*",
    "decoder.*", "*embeddings.position_ids",
)  # fmt: skip


def check_weight_files(folder: Path) -> None:
    """Check that the files of a checkpoint's own weights are there and have content.

    Args:
        folder: The checkpoint; a path that is no folder is a model on the Hub, whose files are not checked.

    Raises:
        ModelError: A file is missing, empty, or a pointer of Git LFS.
    """
    files = set(folder.glob("model*.safetensors"))
    if (index := folder / INDEX_FILE).is_file():
        shards = read_object(index).get("weight_map")
        if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
            raise damaged(index, f"weight_map {shards!r}", "a weight_map with the file of each weight")
        files |= {folder / name for name in shards.values()}
    for path in sorted(files):
        if not path.is_file():
            raise damaged(path, "no such file", f"every file that {INDEX_FILE} names")
        require_content(path)


def check_loading(name: str, config: PretrainedConfig, loading: dict[str, Any]) -> None:
    """Check that all weights fit; those that only a pooler or a pre-training head uses are ignored with a warning.

    Args:
        name: Name of the model.
        config: Its config.
        loading: The loading info of `from_pretrained`.

    Raises:
        ModelError: Weights are missing, unexpected or of a wrong shape.
    """
    unused, unexpected = split_unexpected(loading["unexpected_keys"])
    if marks := sorted(key for key in unexpected if key.startswith(CALLBACK_MARKER)):
        callbacks = " and ".join(mark.removeprefix(CALLBACK_MARKER) for mark in marks)
        logger.warning(f"{name} is a checkpoint in the middle of a training with {callbacks}: it is not compressed yet")
        unexpected = [key for key in unexpected if key not in marks]
    wrappers = {prefix for prefix in WRAPPER_PREFIXES for key in unexpected if key.startswith(prefix)}
    if wrappers:
        raise ModelError(
            f"The weights of {name!r} were saved from a compiled or data-parallel wrapper",
            value=f"names that begin with {' and '.join(sorted(wrappers))}",
            expected="weights named as in the unwrapped model",
            remedy="save the model inside the wrapper (`_orig_mod` or `module`), or rename the weights",
        )
    faults = {"missing_keys": loading["missing_keys"], "unexpected_keys": unexpected}
    faults = {kind: keys for kind, keys in (faults | {"mismatched_keys": loading["mismatched_keys"]}).items() if keys}
    if faults:
        listed = "; ".join(f"{kind}: {sorted(map(str, keys))[:5]}" for kind, keys in faults.items())
        shared = list(faults) == ["missing_keys"] and all(_LATER_LAYER.search(key) for key in faults["missing_keys"])
        raise unusable(name, config, listed, shared)
    if unused:
        warn_once(
            logger,
            f"{len(unused)} weights of {name} that a cross-encoder does not use are ignored: {', '.join(unused[:3])}"
            f"{', ...' if len(unused) > 3 else ''}",
        )


def check_encoder(name: str, model: PreTrainedModel, loading: dict[str, Any]) -> None:
    """Check that no weight of an encoder is new; those of its pooler and of the head may be.

    Args:
        name: Name of the model.
        model: The encoder with a head.
        loading: The loading info of `from_pretrained`.

    Raises:
        ModelError: Weights are missing.
    """
    prefix = f"{model.base_model_prefix}."
    missing = sorted(key for key in loading["missing_keys"] if key.startswith(prefix) and "pooler." not in key)
    if missing:
        raise damaged(
            Path(name),
            f"missing_keys: {missing[:5]}",
            "all weights of the encoder",
            "use config.json and the weights from the same save of the model",
        )


def split_unexpected(keys: Any) -> tuple[list[str], list[str]]:
    """Names of weights that the model lacks: those that it does not use, and all others, sorted."""
    unused = {key for key in keys if any(fnmatch.fnmatchcase(key, pattern) for pattern in UNUSED_WEIGHTS)}
    return sorted(unused), sorted(set(keys) - unused)


def unbuilt(name: str, error: Exception) -> ModelError:
    """The error for a config from which transformers cannot build a model."""
    return ModelError(
        f"transformers cannot build the model from the config.json of {name!r}",
        value=one_line(error),
        expected="sizes and names that fit each other and the weights",
        remedy="correct config.json, or restore the one that was saved with the weights",
    )


def unopened(name: str, conversion: str, error: OSError) -> ModelError:
    """The error for weights that are not in safetensors: pickles are refused, since opening one can run code.

    Args:
        name: Name of the model.
        conversion: The Python line that converts a pickle, NAME, into FOLDER.
        error: What opening the model raised.
    """
    return ModelError(
        f"The weights of {name!r} cannot be opened",
        value=str(error).splitlines()[0],
        expected="model.safetensors, since pickles such as pytorch_model.bin are not read",
        remedy=f"if there is only a pickle, convert it: {conversion}",
    )


def conversion_by(opener: str) -> str:
    """The line that converts a pickle with a class of transformers."""
    return f"transformers.{opener}.from_pretrained(NAME).save_pretrained(FOLDER), with the tokenizer saved there too"


def unreadable(name: str, error: SafetensorError) -> ModelError:
    """The error for a damaged safetensors file."""
    return ModelError(
        f"The weights of {name!r} cannot be read",
        value=one_line(error),
        expected="complete files in the safetensors format",
        remedy="restore them: copy or download them again, or save the model anew",
    )


def unusable(name: str, config: PretrainedConfig, fault: str, shared: bool = False) -> ModelError:
    """The error for weights that do not fit the model.

    Args:
        name: Name of the model.
        config: Its config.
        fault: What does not fit.
        shared: Whether only weights of later layers are missing, as where layers share weights that are stored once.
    """
    if shared:
        remedy = (
            "if layers share weights, store them for each, from the program that builds the model: "
            "model.save_pretrained(FOLDER, state_dict={name: weight.clone() for name, weight in "
            "model.state_dict().items()}); otherwise use config.json and the weights from the same save of the model"
        )
    elif hasattr(config, CONFIG_KEY):
        remedy = "use config.json and the weights from the same save of the pruned model"
    else:
        remedy = (
            "use a trained cross-encoder; an encoder without a scoring head has to be trained first (`teacher.train` "
            "in the recipe), and weights that another tool has quantized have to be dequantized by it"
        )
    return ModelError(
        f"The weights of {name!r} do not fit the model",
        value=fault,
        expected="a cross-encoder with its scoring head, whose weights all fit",
        remedy=remedy,
    )
