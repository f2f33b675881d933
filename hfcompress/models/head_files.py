"""Files of the modules behind the encoder of a modular cross-encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from hfcompress.errors import ModelError
from hfcompress.models.modular import HEAD
from hfcompress.models.modules import CLASSES, WITH_WEIGHTS, HeadModule
from hfcompress.models.sentence_transformers import CrossEncoderSettings, cross_encoder_settings, model_file
from hfcompress.models.weights import unreadable
from hfcompress.utils.json_files import require_content

CONVERSION = "sentence_transformers.CrossEncoder(NAME).save(FOLDER)"  # of a pickle
MODULE_WEIGHTS = "model.safetensors"  # in the folder of a module
_TRANSFORMER_CLASS = "sentence_transformers.base.modules.transformer.Transformer"


def module_files(source: str, settings: CrossEncoderSettings) -> Iterator[tuple[int, Path]]:
    """Number and weight file of each module that has weights.

    Args:
        source: A folder or a Hub id.
        settings: Its settings.

    Raises:
        ModelError: A module has no weights in safetensors.
    """
    for number, (module, folder) in enumerate(zip(settings.modules or (), settings.folders, strict=True), 1):
        if module.type in WITH_WEIGHTS:
            path = model_file(source, f"{folder}/{MODULE_WEIGHTS}")
            if path is None:
                raise ModelError(
                    f"The {module.type} of the cross-encoder has no weights in safetensors",
                    value=f"no {folder}/{MODULE_WEIGHTS} in {source}",
                    expected=f"{MODULE_WEIGHTS} in the folder of each module with weights; pickles such as "
                    "pytorch_model.bin are not read",
                    remedy=f"if there is only a pickle, convert it: {CONVERSION}",
                )
            yield number, path


def head_files(folder: Path) -> list[Path]:
    """All files of the modules behind the transformer of a modular cross-encoder; none of another model.

    Args:
        folder: Folder of the model.
    """
    settings = cross_encoder_settings(str(folder))
    weights = [path for _, path in module_files(str(folder), settings)]
    return [*weights, *(folder / name / "config.json" for name in settings.folders)]


def module_entries(modules: Sequence[HeadModule]) -> tuple[list[dict[str, Any]], Mapping[str, HeadModule]]:
    """Content of `modules.json`, and the module behind the transformer by its folder, as version 6 writes them."""
    folders = {f"{number}_{module.type}": module for number, module in enumerate(modules, 1)}
    rows = [("", _TRANSFORMER_CLASS), *((folder, CLASSES[module.type]) for folder, module in folders.items())]
    return [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (path, kind) in enumerate(rows)], folders


def load_head(source: str, model: PreTrainedModel, loading: dict[str, Any]) -> None:
    """Load the modules of a modular cross-encoder from their folders, if it has them.

    Args:
        source: A folder or a Hub id.
        model: The model, whose encoder is loaded.
        loading: Its loading info, which gets the faults of the head instead of all its weights.

    Raises:
        ModelError: A module has no weights in safetensors, or they are damaged.
    """
    settings = cross_encoder_settings(source)
    if not settings.modules:
        return
    prefix = f"{HEAD}."
    wanted = {key: value for key, value in model.state_dict().items() if key.startswith(prefix)}
    found: dict[str, Tensor] = {}
    for number, path in module_files(source, settings):
        require_content(path)
        try:
            found |= {f"{prefix}{number}.{key}": value for key, value in load_file(path).items()}
        except SafetensorError as error:
            raise unreadable(source, error) from error
    fitting = {key: found[key] for key in wanted.keys() & found if found[key].shape == wanted[key].shape}
    model.load_state_dict(fitting, strict=False)
    loading["missing_keys"] = (set(loading["missing_keys"]) - set(wanted)) | (wanted.keys() - found)
    loading["unexpected_keys"] = set(loading["unexpected_keys"]) | (found.keys() - wanted)
    loading["mismatched_keys"] = set(loading["mismatched_keys"]) | (wanted.keys() & found) - fitting.keys()
