"""Settings of a cross-encoder in the files of sentence-transformers, read as its `CrossEncoder` reads them.

`CrossEncoder` of sentence-transformers 6 reads these files only if there is a `modules.json` and
`config_sentence_transformers.json` has the model type `CrossEncoder`. Other folders have the settings of `config.json`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from torch import nn

from hfcompress.errors import ModelError
from hfcompress.models.prompts import Prompts
from hfcompress.utils.json_files import read_list, read_object

logger = logging.getLogger(__name__)

MODULES_FILE = "modules.json"
SETTINGS_FILE = "config_sentence_transformers.json"
TRANSFORMER_FILE = "sentence_bert_config.json"
# Keys of TRANSFORMER_FILE that do not change scores, or are checked or applied here.
_KNOWN = {"transformer_task", "modality_config", "module_output_name", "max_seq_length", "unpad_inputs"}
# Looked up by name only: a checkpoint must not be able to name code to run. All are monotonic, so that the order of
# logits is that of scores. The first is the default.
_MONOTONIC = (nn.Sigmoid, nn.Identity, nn.Tanh, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.ReLU)
ACTIVATIONS: dict[str, type[nn.Module]] = {f"{kind.__module__}.{kind.__name__}": kind for kind in _MONOTONIC}


@dataclass(frozen=True)
class CrossEncoderSettings:
    """Settings that change the scores of a cross-encoder.

    Attributes:
        activation: Full name of the activation, which takes precedence over `config.json`; None if it is not set.
        prompts: The prompts.
        max_length: Longest input in tokens, which takes precedence over the tokenizer's; None if it is not set.
    """

    activation: str | None = None
    prompts: Prompts = field(default_factory=Prompts)
    max_length: int | None = None


def cross_encoder_settings(source: str) -> CrossEncoderSettings:
    """Read the settings of a cross-encoder.

    Args:
        source: A folder or a Hub id.

    Raises:
        ModelError: A file is damaged, or contains something that changes scores and is not supported, such as further
            modules behind the transformer.
    """
    modules, settings_file = _file(source, MODULES_FILE), _file(source, SETTINGS_FILE)
    settings = read_object(settings_file) if settings_file else {}
    if modules is None or settings.get("model_type") != "CrossEncoder":
        return CrossEncoderSettings()
    _check_modules(read_list(modules))
    transformer_file = _file(source, TRANSFORMER_FILE)
    transformer = read_object(transformer_file) if transformer_file else {}
    if unsupported := sorted(_unsupported(transformer)):
        raise ModelError(
            f"{TRANSFORMER_FILE} has settings that change the scores, which hfcompress does not support",
            value=", ".join(unsupported),
            expected="a plain sequence-classification model that reads pairs of texts",
            remedy="use another model, or save it with these settings in tokenizer.json and config.json instead",
        )
    activation = settings.get("activation_fn")
    if not isinstance(activation, str | None):
        raise _invalid(SETTINGS_FILE, "activation_fn", activation, "the full name of an activation of PyTorch")
    length = transformer.get("max_seq_length")
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
        raise _invalid(TRANSFORMER_FILE, "max_seq_length", length, "a number of tokens above 0")
    return CrossEncoderSettings(activation, _prompts(settings), length)


def full_activation_name(name: object) -> str | None:
    """The key in `ACTIVATIONS` for a full or short name such as `torch.nn.Tanh`; None if it is not among them."""
    short = {f"torch.nn.{kind.__name__}": full for full, kind in ACTIVATIONS.items()}
    full = short.get(str(name), str(name))
    return full if full in ACTIVATIONS else None


def _prompts(settings: dict[str, Any]) -> Prompts:
    prompts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise _invalid(SETTINGS_FILE, "prompts", prompts, "texts by name")
    if default is not None and not (isinstance(default, str) and default in prompts):
        names = ", ".join(map(repr, prompts)) or "no names, since there are no prompts"
        raise _invalid(SETTINGS_FILE, "default_prompt_name", default, f"a name in prompts: {names}")
    return Prompts({name: text or "" for name, text in prompts.items()}, default)


def _check_modules(modules: list[Any]) -> None:
    """Check that the cross-encoder is a transformer alone, whose files lie in the folder itself."""
    kinds = [str(module.get("type")) if isinstance(module, dict) else repr(module) for module in modules]
    others = [
        kind for kind in kinds if not (kind.startswith("sentence_transformers.") and kind.endswith(".Transformer"))
    ]
    folders = [str(module["path"]) for module in modules if isinstance(module, dict) and module.get("path")]
    if others or folders or len(modules) != 1:
        raise ModelError(
            "The cross-encoder of sentence-transformers consists of modules, which hfcompress does not support",
            value=f"{', '.join(kinds)}{' in ' + ', '.join(folders) if folders else ''}",
            expected=f"one Transformer in {MODULES_FILE}, in the folder itself: other modules, such as a Dense head, "
            "change the scores",
            remedy="use a cross-encoder that transformers opens with AutoModelForSequenceClassification",
        )


def _unsupported(transformer: dict[str, Any]) -> Iterator[str]:
    """Settings of the transformer that change scores and are not supported."""
    task = transformer.get("transformer_task", "sequence-classification")
    if task != "sequence-classification":
        yield f"transformer_task={task!r}"
    modalities = transformer.get("modality_config", {"text": {}})
    if not isinstance(modalities, dict) or "text" not in modalities or "message" in modalities:
        yield f"modality_config={modalities!r}"
    for key, value in transformer.items():
        if key not in _KNOWN and value not in (None, False, {}, ""):
            yield f"{key}={value!r}"


def _file(source: str, name: str) -> Path | None:
    """A file of a model; None if it has no such file."""
    folder = Path(source)
    path = folder / name if folder.is_dir() else _downloaded(source, name)
    return path if path is not None and path.is_file() else None


@cache  # one request, and one warning, in a process
def _downloaded(name: str, file: str) -> Path | None:
    try:
        return Path(hf_hub_download(name, file))
    except LocalEntryNotFoundError:
        logger.warning("%s of %s is not in the cache, and the Hub cannot be reached: it is taken as absent", file, name)
    except EntryNotFoundError:
        pass
    return None


def _invalid(file: str, key: str, value: Any, expected: str) -> ModelError:
    return ModelError(
        f"Invalid {key} in {file}",
        value=value,
        expected=expected,
        remedy="correct it, or save the model with sentence-transformers again",
    )
