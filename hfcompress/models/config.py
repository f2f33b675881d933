"""Read the `config.json` of a model, also with settings that other tools or machines have left in it."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PretrainedConfig
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME, find_adapter_config_file

from hfcompress.errors import ModelError
from hfcompress.models.architectures import architecture_of
from hfcompress.utils.json_files import damaged, one_line, read_object
from hfcompress.utils.log import warn_once

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
# What the config classes of transformers raise for values that they cannot use.
CONFIG_FAULTS = (ValueError, TypeError, AttributeError, KeyError, StrictDataclassError)
# Implementations that every installation of torch has. Their scores are the same; others need packages, or code from
# the Hub, which is not run.
ATTENTION = ("eager", "sdpa")


def read_config(source: str, trust_remote_code: bool = False) -> PretrainedConfig:
    """Read the config of a model of a supported family.

    The quantization settings of other tools are removed, and so is the choice of an attention implementation that may
    not be installed: the weights have to fit the plain model, and the implementations compute the same scores.

    Args:
        source: A folder or Hub id.
        trust_remote_code: As for `AutoConfig` of transformers.

    Raises:
        ModelError: There is no such model, it is an adapter of PEFT, its config is damaged, or its family is not
            supported.
    """
    path = Path(source, CONFIG_FILE)
    _refuse_adapter(source)
    if path.is_file():
        read_object(path)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except CONFIG_FAULTS as error:
        if not path.is_file() and isinstance(error, ValueError):
            raise not_found("model", CONFIG_FILE, source, error) from error
        raise _unusable(source, error) from error
    except OSError as error:
        raise not_found("model", CONFIG_FILE, source, error) from error
    _check_sizes(source, config)
    _check_token_ids(source, config)
    _remove_foreign_settings(source, config)
    return config


def not_found(what: str, file: str, name: str, error: Exception) -> ModelError:
    """The error for a model or a part of it that is not where its name says.

    Args:
        what: The part.
        file: The file that the part is read from.
        name: Name of the model.
        error: What opening it raised.
    """
    return ModelError(
        f"The {what} cannot be opened",
        value=f"{name} ({str(error).splitlines()[0]})",
        expected=f"a folder with {file}, or the id of a model on the Hub",
        remedy="check the name, and the network if it is a Hub id",
    )


def _unusable(source: str, error: Exception) -> ModelError:
    return damaged(
        Path(source, CONFIG_FILE),
        error,
        "settings that transformers accepts for the model_type that the file names",
        "correct this setting, or restore the config.json that was saved with the weights",
    )


def _refuse_adapter(source: str) -> None:
    """Refuse an adapter of PEFT beside a whole model, which transformers adds with peft and ignores without it.

    One that is alone in a folder or a repository is merged before (see `adapters.py`).
    """
    try:
        found = find_adapter_config_file(source) if Path(source).is_dir() else _adapter_on_hub(source)
    except OSError:  # no such repository, or no network: reported for config.json
        return
    if found is None:
        return
    settings = read_object(Path(found))
    kind, base = settings.get("peft_type", "unknown type"), settings.get("base_model_name_or_path", "unknown")
    raise ModelError(
        f"{source} contains an adapter of PEFT, which has to be merged into its base model first",
        value=f"{ADAPTER_CONFIG_NAME} ({kind}, base model {base})",
        expected="a cross-encoder with all its weights",
        remedy="name a folder or repository that contains the adapter alone; if the weights beside it are merged "
        "already, remove the files adapter_*, after hf download NAME --local-dir FOLDER for a model on the Hub",
    )


@cache  # one request in a process
def _adapter_on_hub(name: str) -> str | None:
    found: str | None = find_adapter_config_file(name)
    return found


def _check_sizes(source: str, config: PretrainedConfig) -> None:
    """Check the sizes that are read before a model is built; building it checks whether they fit each other."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "vocab_size")
    wrong = {name: size for name in (*names, architecture_of(config).ffn_size) if (size := getattr(config, name)) < 1}
    if getattr(config, "type_vocab_size", 0) < 0:
        wrong["type_vocab_size"] = config.type_vocab_size
    if wrong:
        raise damaged(
            Path(source, CONFIG_FILE), wrong, "sizes above 0", "restore the config.json that was saved with the weights"
        )


def _check_token_ids(source: str, config: PretrainedConfig) -> None:
    """Check the padding token, and read an id below 0, as some configs have it, as none."""
    if config.pad_token_id is not None and config.pad_token_id < 0:
        config.pad_token_id = None
    if config.pad_token_id is not None and config.pad_token_id >= config.vocab_size:
        raise damaged(
            Path(source, CONFIG_FILE),
            f"pad_token_id {config.pad_token_id}, vocab_size {config.vocab_size}",
            "a pad_token_id below vocab_size",
            "set pad_token_id to the id of the tokenizer's padding token",
        )


def _remove_foreign_settings(source: str, config: PretrainedConfig) -> None:
    found = getattr(config, "quantization_config", None)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    if found:
        tool = found.get("quant_method", "unnamed") if isinstance(found, dict) else one_line(found)
        warn_once(
            logger,
            f"quantization_config ({tool}) in the config.json of {source} is ignored: the weights are read as those of "
            "the plain model, and refused if they do not fit it",
        )
    attention = config._attn_implementation
    if attention is not None and attention not in ATTENTION:
        config._attn_implementation = None
        warn_once(
            logger,
            f"attn_implementation {attention!r} in the config.json of {source} is ignored: the implementation that "
            "torch has computes the same scores",
        )
