"""Settings and modules of a cross-encoder in the files of sentence-transformers, read as its `CrossEncoder` reads them.

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
from hfcompress.models.modules import KINDS, HeadModule, Pooling, head_module
from hfcompress.models.prompts import Prompts
from hfcompress.utils.json_files import read_list, read_object

logger = logging.getLogger(__name__)

MODULES_FILE = "modules.json"
SETTINGS_FILE = "config_sentence_transformers.json"
TRANSFORMER_FILE = "sentence_bert_config.json"
# What a transformer computes, in TRANSFORMER_FILE: the score itself, or the embeddings that further modules read.
SCORING: dict[str, Any] = {
    "transformer_task": "sequence-classification",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "scores",
}
EMBEDDING: dict[str, Any] = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
# Keys of TRANSFORMER_FILE that do not change scores, or are checked or applied here.
_KNOWN = {"transformer_task", "modality_config", "module_output_name", "max_seq_length", "unpad_inputs"}
# Looked up by name only: a checkpoint must not be able to name code to run. All are monotonic, so that the order of
# logits is that of scores. The first is the default.
_MONOTONIC = (nn.Sigmoid, nn.Identity, nn.Tanh, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.ReLU)
ACTIVATIONS: dict[str, type[nn.Module]] = {f"{kind.__module__}.{kind.__name__}": kind for kind in _MONOTONIC}


@dataclass(frozen=True)
class CrossEncoderSettings:
    """What the files of sentence-transformers say about the scores of a cross-encoder.

    Attributes:
        activation: Full name of the activation, which takes precedence over `config.json`; None if it is not set.
        prompts: The prompts.
        max_length: Longest input in tokens, which takes precedence over the tokenizer's; None if it is not set.
        modules: The modules behind the transformer; None if there is no `modules.json` of a cross-encoder, and empty if
            the transformer alone gives the score.
        folders: Folder of each of these modules.
    """

    activation: str | None = None
    prompts: Prompts = field(default_factory=Prompts)
    max_length: int | None = None
    modules: tuple[HeadModule, ...] | None = None
    folders: tuple[str, ...] = ()


def cross_encoder_settings(source: str) -> CrossEncoderSettings:
    """Read the settings of a cross-encoder.

    Args:
        source: A folder or a Hub id.

    Raises:
        ModelError: A file is damaged, or contains something that changes scores and is not supported, such as a module
            of an LLM.
    """
    modules, settings_file = model_file(source, MODULES_FILE), model_file(source, SETTINGS_FILE)
    settings = read_object(settings_file) if settings_file else {}
    if modules is None or settings.get("model_type") != "CrossEncoder":
        return CrossEncoderSettings()
    listed = _listed_modules(read_list(modules))
    head = tuple(_head_module(source, *module) for module in listed)
    transformer_file = model_file(source, TRANSFORMER_FILE)
    transformer = read_object(transformer_file) if transformer_file else {}
    if unsupported := sorted(_unsupported(transformer, EMBEDDING if head else SCORING)):
        raise ModelError(
            f"{TRANSFORMER_FILE} has settings that change the scores, which hfcompress does not support",
            value=", ".join(unsupported),
            expected="a plain transformer that reads pairs of texts, for their scores or an embedding of each token",
            remedy="use another model, or save it with these settings in tokenizer.json and config.json instead",
        )
    activation = settings.get("activation_fn")
    if not isinstance(activation, str | None):
        raise _invalid(SETTINGS_FILE, "activation_fn", activation, "the full name of an activation of PyTorch")
    length = transformer.get("max_seq_length")
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
        raise _invalid(TRANSFORMER_FILE, "max_seq_length", length, "a number of tokens above 0")
    prompts = _prompts(settings)
    if prompts.text and any(isinstance(module, Pooling) and not module.include_prompt for module in head):
        raise _invalid("the Pooling's config.json", "include_prompt", False, "true, since there is a default prompt")
    return CrossEncoderSettings(activation, prompts, length, head, tuple(folder for _, folder in listed))


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


def _listed_modules(modules: list[Any]) -> list[tuple[str, str]]:
    """Kind and folder of each module behind the transformer, whose own files lie in the folder of the model."""
    rows = [module if isinstance(module, dict) else {} for module in modules]
    kinds = [str(row.get("type")) for row in rows]
    names = [kind.rpartition(".")[2] if kind.startswith("sentence_transformers.") else "" for kind in kinds]
    folders = [str(row.get("path") or "") for row in rows]
    unknown = [kind for kind, name in zip(kinds, names, strict=True) if name not in ("Transformer", *KINDS)]
    in_order = names[:1] == ["Transformer"] and "Transformer" not in names[1:] and folders[0] == "" and all(folders[1:])
    if outside := [folder for folder in folders if Path(folder).is_absolute() or ".." in Path(folder).parts]:
        raise _invalid(MODULES_FILE, "path", ", ".join(outside), "folders within that of the model")
    if unknown or not in_order:
        raise ModelError(
            "The cross-encoder of sentence-transformers has modules that hfcompress does not support",
            value=", ".join(
                f"{kind} in {folder}" if folder else kind for kind, folder in zip(kinds, folders, strict=True)
            ),
            expected=f"in {MODULES_FILE}, one Transformer in the folder itself, and behind it only {', '.join(KINDS)}"
            + ("; LogitScore reads the score from an LLM's next token" if "LogitScore" in names else ""),
            remedy="use a cross-encoder that is an encoder with such modules, or with a classification head",
        )
    return list(zip(names, folders, strict=True))[1:]


def _head_module(source: str, kind: str, folder: str) -> HeadModule:
    path = model_file(source, f"{folder}/config.json")
    return head_module(kind, read_object(path) if path else {}, folder)


def _unsupported(transformer: dict[str, Any], usual: dict[str, Any]) -> Iterator[str]:
    """Settings of the transformer that change scores and are not supported; `usual` has what it computes."""
    task = transformer.get("transformer_task", usual["transformer_task"])
    if task != usual["transformer_task"]:
        yield f"transformer_task={task!r}"
    modalities = transformer.get("modality_config", {"text": {}})
    plain = isinstance(modalities, dict) and "text" in modalities and "message" not in modalities
    if not plain or (usual is EMBEDDING and modalities["text"] not in ({}, usual["modality_config"]["text"])):
        yield f"modality_config={modalities!r}"
    if usual is EMBEDDING and transformer.get("module_output_name", "token_embeddings") != "token_embeddings":
        yield f"module_output_name={transformer['module_output_name']!r}"
    for key, value in transformer.items():
        if key not in _KNOWN and value not in (None, False, {}, ""):
            yield f"{key}={value!r}"


def model_file(source: str, name: str) -> Path | None:
    """A file of a model; None if it has no such file.

    Args:
        source: A folder or a Hub id.
        name: Path of the file in it.
    """
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
