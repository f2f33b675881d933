"""Save a cross-encoder checkpoint that transformers, sentence-transformers and other loaders open."""

from __future__ import annotations

import json
import logging
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.errors import ModelError
from hfcompress.models.head_files import MODULE_WEIGHTS, module_entries
from hfcompress.models.modular import encoder_alone, head_weights, modules_of
from hfcompress.models.positions import position_limit
from hfcompress.models.prompts import Prompts, prompts_of
from hfcompress.models.score_head import LogOdds
from hfcompress.models.sentence_transformers import (
    EMBEDDING,
    MODULES_FILE,
    SCORING,
    SETTINGS_FILE,
    TRANSFORMER_FILE,
)
from hfcompress.models.wrappers import own_state, shared_weights, unwrapped
from hfcompress.utils.files import write_text
from hfcompress.utils.quiet import quiet

logger = logging.getLogger(__name__)

# Settings from the loading or the last call of a tokenizer; they do not belong to the checkpoint.
_TOKENIZER_TRACES = (
    "is_local", "local_files_only", "max_length", "stride", "truncation_strategy", "pad_to_multiple_of",
    "pad_token_type_id",
)  # fmt: skip


def save_checkpoint(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, activation: str, max_length: int
) -> None:
    """Write model, tokenizer and the files of sentence-transformers into `folder`.

    Args:
        folder: Output folder.
        model: The cross-encoder, pruned or not; inside wrappers or not. Weights that layers share are stored for each.
        tokenizer: Its tokenizer; prompts that `load_tokenizer` has read are saved too.
        activation: Full name of the activation that loaders apply to the score, e.g.
            `torch.nn.modules.linear.Identity`.
        max_length: Maximum input length in tokens; it is limited to the positions of the model.

    Raises:
        ModelError: The model computes log-odds of a label against several others, which no stock class does.
    """
    model = unwrapped(model)
    if any(isinstance(module, LogOdds) for module in model.modules()):
        raise ModelError(
            "A model whose score is the log-odds of a label against all others cannot be saved",
            expected="a model whose score is a weighted sum of logits",
            remedy="use it as an additional teacher, or load it with a score without log_odds",
        )
    folder.mkdir(parents=True, exist_ok=True)
    modules = modules_of(model.config)
    max_length = min(max_length, position_limit(model.config))
    model.config.sentence_transformers = {"activation_fn": activation, "version": _version("sentence-transformers")}
    stored = encoder_alone(model) if modules else model
    if shared := shared_weights(stored):
        logger.info(f"{len(shared)} weights are shared, and stored for each place: {shared[0]} and others")
    with quiet():
        stored.save_pretrained(folder, state_dict=own_state(stored) if shared else None)
    entries, folders = module_entries(modules)
    for name, module in folders.items():
        _write_json(folder / name / "config.json", module.to_file())
    for name, weights in head_weights(model, list(folders)).items():
        save_file(weights, folder / name / MODULE_WEIGHTS)
    for path in (*folder.glob("*.safetensors"), *folder.glob(f"*/{MODULE_WEIGHTS}")):
        shutil.copymode(folder / "config.json", path)  # safetensors makes its files readable by the owner only
    _save_tokenizer(folder, tokenizer, max_length)
    computed = EMBEDDING if modules else SCORING
    for name, content in _sentence_transformers_files(
        entries, computed, activation, max_length, prompts_of(tokenizer)
    ).items():
        _write_json(folder / name, content)


def _save_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
    tokenizer.model_max_length = max_length
    backend = tokenizer.backend_tokenizer
    truncation, padding = backend.truncation, backend.padding
    backend.no_truncation()
    backend.no_padding()
    tokenizer.save_pretrained(folder)
    if truncation:
        backend.enable_truncation(**truncation)
    if padding:
        backend.enable_padding(**padding)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    _write_json(path, {key: value for key, value in settings.items() if key not in _TOKENIZER_TRACES})
    _write_json(folder / "special_tokens_map.json", tokenizer.special_tokens_map)


def _sentence_transformers_files(
    entries: list[dict[str, Any]], computed: dict[str, Any], activation: str, max_length: int, prompts: Prompts
) -> dict[str, Any]:
    """Files of a cross-encoder of sentence-transformers 6, and `max_seq_length`, which other servers read."""
    return {
        MODULES_FILE: entries,
        SETTINGS_FILE: {
            "__version__": {
                "pytorch": version("torch"),
                "sentence_transformers": _version("sentence-transformers"),
                "transformers": version("transformers"),
            },
            "activation_fn": activation,
            "default_prompt_name": prompts.default,
            "model_type": "CrossEncoder",
            "prompts": dict(prompts.texts),
        },
        TRANSFORMER_FILE: {**computed, "max_seq_length": max_length},
    }


def _version(package: str) -> str:
    """Version of a package; if it is not installed, the version of sentence-transformers whose layout is written."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "6.2.0"


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")
