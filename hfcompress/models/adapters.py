"""LoRA adapters of PEFT: merged into their base model, once, into a folder that any loader of this package opens."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import cached_file
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME, find_adapter_config_file

from hfcompress.errors import MissingExtraError, ModelError
from hfcompress.models.config import CONFIG_FILE, not_found, read_config
from hfcompress.models.layout import CARD_FILE, TOKENIZER_FILES
from hfcompress.models.modular import class_for, score_layer
from hfcompress.models.sentence_transformers import (
    MODULES_FILE,
    SETTINGS_FILE,
    TRANSFORMER_FILE,
    cross_encoder_settings,
    model_file,
)
from hfcompress.models.surgery import needs_custom_code, plan_of_config
from hfcompress.models.tokenizer import has_tokenizer, read_tokenizer
from hfcompress.models.weights import check_weight_files, conversion_by, split_unexpected, unopened, unreadable
from hfcompress.utils.cache import cache_folder
from hfcompress.utils.files import replaced_folder
from hfcompress.utils.json_files import read_object, require_content
from hfcompress.utils.quiet import quiet

logger = logging.getLogger(__name__)

MERGED_FOLDER = "merged"  # in the cache
SETTINGS_FILES = (MODULES_FILE, SETTINGS_FILE, TRANSFORMER_FILE)
_PREFIX = "base_model.model."  # of the names of weights in an adapter


def adapter_folder(name: str) -> Path | None:
    """The folder of an adapter; None if the name is that of a model, or of nothing that can be reached.

    Args:
        name: A folder, or a Hub id, from whose repository the files of an adapter are downloaded.

    Raises:
        ModelError: The download of an adapter fails.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder if (folder / ADAPTER_CONFIG_NAME).is_file() and not (folder / CONFIG_FILE).is_file() else None
    return _downloaded(name)


@cache  # the Hub is asked once in a process
def _downloaded(name: str) -> Path | None:
    """The files of an adapter on the Hub; None if the repository has a model, or cannot be reached."""
    try:
        if isinstance(try_to_load_from_cache(name, CONFIG_FILE), str):  # without a request
            return None
        if cached_file(name, CONFIG_FILE, _raise_exceptions_for_missing_entries=False) is not None:
            return None
        if find_adapter_config_file(name) is None:
            return None
    except (OSError, HFValidationError):  # no such repository, or no network: reported for config.json
        return None
    files = [ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME, *TOKENIZER_FILES, *SETTINGS_FILES, CARD_FILE]
    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except OSError as error:
        raise not_found("adapter", ADAPTER_SAFE_WEIGHTS_NAME, name, error) from error


def base_of(folder: Path) -> str:
    """Name of the base model of an adapter: a Hub id, or a folder.

    Raises:
        ModelError: The settings of the adapter name none.
    """
    base = read_object(folder / ADAPTER_CONFIG_NAME).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(
            f"The adapter in {folder} names no base model",
            value=f"base_model_name_or_path={base!r}",
            expected=f"a folder or a Hub id in {ADAPTER_CONFIG_NAME}",
            remedy="name the model there that the adapter was trained on",
        )
    beside = folder / base  # a path may be relative to the adapter
    return str(beside) if not Path(base).is_dir() and beside.is_dir() else base


def merged(folder: Path) -> Path:
    """The folder with an adapter merged into its base model in fp32; it is made if the cache does not have it.

    Args:
        folder: Folder of the adapter.

    Raises:
        MissingExtraError: peft is not installed.
        ModelError: The adapter is none of LoRA, has no weights in safetensors, or does not fit its base model; the base
            model cannot be opened; or neither of the two has a scoring head.
    """
    return _merged(folder, _fingerprint(folder))


@cache  # one look into the cache, and one line in the log, in a process
def _merged(folder: Path, fingerprint: str) -> Path:
    target = cache_folder() / MERGED_FOLDER / fingerprint
    if not (target / CONFIG_FILE).is_file():
        _check_kind(folder)
        base = base_of(folder)
        logger.info(f"the adapter in {folder} is merged into {base}")
        with replaced_folder(target) as temporary, quiet():
            _merge(folder, base).save_pretrained(temporary)
            read_tokenizer(str(folder) if has_tokenizer(str(folder)) else base).save_pretrained(temporary)
            for name in SETTINGS_FILES:
                path = model_file(str(folder), name) or model_file(base, name)
                if path is not None:
                    shutil.copyfile(path, temporary / name)
    return target


def _fingerprint(folder: Path) -> str:
    """SHA-256 over the adapter, and over names, sizes and times of the files of a base model in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(path.name.encode() + b"\x00" + path.read_bytes())
    base = Path(base_of(folder))
    digest.update(str(base.resolve() if base.is_dir() else base).encode())
    for path in sorted(base.glob("*")) if base.is_dir() else ():
        digest.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def _check_kind(folder: Path) -> None:
    if importlib.util.find_spec("peft") is None:
        raise MissingExtraError("peft", "peft", f"The LoRA adapter in {folder}")
    settings = read_object(folder / ADAPTER_CONFIG_NAME)
    if settings.get("peft_type") != "LORA":
        raise ModelError(
            f"The adapter in {folder} is of a kind that is not merged",
            value=f"peft_type={settings.get('peft_type')!r}",
            expected="peft_type LORA",
            remedy="if peft can merge it, save merge_and_unload() of the model with the tokenizer into a new folder",
        )
    if settings.get("revision") not in (None, "main"):
        raise ModelError(
            f"The adapter in {folder} names a revision of its base model",
            value=f"revision={settings['revision']!r} of {base_of(folder)}",
            expected="the main revision, or a folder",
            remedy="download that revision with `hf download`, name its folder as base_model_name_or_path in "
            f"{ADAPTER_CONFIG_NAME}, and set revision there to null",
        )
    if not (folder / ADAPTER_SAFE_WEIGHTS_NAME).is_file():
        raise ModelError(
            f"The adapter in {folder} has no weights in safetensors",
            value=", ".join(sorted(path.name for path in folder.glob("adapter_model*"))) or "no adapter_model file",
            expected=f"{ADAPTER_SAFE_WEIGHTS_NAME}, since pickles such as adapter_model.bin are not read",
            remedy="if there is only a pickle, convert it: peft.AutoPeftModelForSequenceClassification"
            ".from_pretrained(FOLDER, num_labels=1).save_pretrained(FOLDER)",
        )
    require_content(folder / ADAPTER_SAFE_WEIGHTS_NAME)
    for source in (str(folder), base_of(folder)):
        if cross_encoder_settings(source).modules:
            raise ModelError(
                f"The adapter in {folder} belongs to a modular cross-encoder of sentence-transformers",
                value=f"{MODULES_FILE} in {source} with modules behind the Transformer",
                expected="an adapter of a model with a classification head",
                remedy="merge it first: open it with sentence_transformers.CrossEncoder, merge the adapter into the "
                "first module's model with peft, and save that into a new folder",
            )


def _merge(folder: Path, base: str) -> PreTrainedModel:
    """The base model with the adapter's weights added to its own."""
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    try:
        weights = load_file(folder / ADAPTER_SAFE_WEIGHTS_NAME)
    except SafetensorError as error:
        raise unreadable(str(folder), error) from error
    config = read_config(base)
    config.num_labels = _label_count(config, weights)
    model = _base_model(base, config, {name.removeprefix(_PREFIX) for name in weights})
    try:
        wrapped = get_peft_model(model, PeftConfig.from_pretrained(str(folder)))
        expected = set(get_peft_model_state_dict(wrapped))
        set_peft_model_state_dict(wrapped, weights)
    except (ValueError, RuntimeError, KeyError) as error:
        raise _unfit(folder, base, str(error).splitlines()[0]) from error
    # A head of the base that the adapter did not train is not in its file.
    missing = {name for name in expected - weights.keys() if "lora_" in name}
    if faults := sorted(missing | (weights.keys() - expected)):
        raise _unfit(folder, base, f"{len(faults)} names of weights differ, such as {', '.join(faults[:3])}")
    whole: PreTrainedModel = wrapped.merge_and_unload()
    return whole


def _class_of(config: PretrainedConfig) -> Any:
    return class_for(config, needs_custom_code(config, plan_of_config(config)))


def _label_count(config: PretrainedConfig, weights: dict[str, Tensor]) -> int:
    """Number of outputs: that of the adapter's head, if it has one, else that of the base model."""
    with torch.device("meta"):
        path = score_layer(_class_of(config)(config))
    head = weights.get(f"{_PREFIX}{path}.weight")
    return config.num_labels or 0 if head is None else len(head)


def _base_model(base: str, config: PretrainedConfig, adapted: set[str]) -> PreTrainedModel:
    """Load the base model in fp32; a head that it lacks must be among the adapter's weights."""
    check_weight_files(Path(base))
    try:
        model, loading = _class_of(config).from_pretrained(
            base, config=config, use_safetensors=True, output_loading_info=True, dtype=torch.float32,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    except OSError as error:
        raise unopened(base, conversion_by("AutoModelForSequenceClassification"), error) from error
    except SafetensorError as error:
        raise unreadable(base, error) from error
    absent = {*loading["missing_keys"], *(key[0] for key in loading["mismatched_keys"])}
    faults = sorted(absent - adapted) + split_unexpected(loading["unexpected_keys"])[1]
    if faults:
        raise ModelError(
            "The base model of the adapter and the adapter make no whole cross-encoder",
            value=f"{base}: {', '.join(faults[:5])}",
            expected="weights of all parts: the head may be in the adapter, under modules_to_save",
            remedy="use the base model that the adapter was trained on, and an adapter that saved its head",
        )
    whole: PreTrainedModel = model
    return whole


def _unfit(folder: Path, base: str, fault: str) -> ModelError:
    return ModelError(
        f"The adapter in {folder} does not fit its base model",
        value=fault,
        expected=f"an adapter that was trained on {base}",
        remedy=f"correct base_model_name_or_path in {ADAPTER_CONFIG_NAME}, or use the files of one save of the adapter",
    )
