"""RankerCompressionConfig: how a checkpoint was compressed, saved beside it like other configs of Optimum."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

from optimum.configuration_utils import BaseConfig
from pydantic import TypeAdapter, ValidationError
from transformers import PretrainedConfig

from hfcompress.errors import ModelError, RecipeError
from hfcompress.utils.json_files import damaged, read_object
from hfcompress.utils.settings import refuse_unknown

# Keys that transformers and Optimum add to every config that they write, in this or in other versions.
_WRITTEN = {
    "model_type", "transformers_version", "optimum_version", "torch_dtype", "dtype", "architectures", "return_dict",
    "output_attentions", "output_hidden_states", "torchscript", "use_bfloat16", "pruned_heads", "tie_word_embeddings",
    "is_decoder", "is_encoder_decoder", "cross_attention_hidden_size", "add_cross_attention", "tie_encoder_decoder",
    "chunk_size_feed_forward", "finetuning_task", "id2label", "label2id", "tokenizer_class", "prefix", "bos_token_id",
    "pad_token_id", "eos_token_id", "sep_token_id", "decoder_start_token_id", "task_specific_params", "problem_type",
}  # fmt: skip
_TYPES: dict[str, TypeAdapter] = {
    "recipe": TypeAdapter(dict[str, Any] | None),
    "plan": TypeAdapter(dict[str, Any] | None),
    "quantization": TypeAdapter(dict[str, dict[str, Any]] | None),
    "calibration": TypeAdapter(dict[str, dict[str, Any]] | None),
    "versions": TypeAdapter(dict[str, str] | None),
}


class StrictConfig(BaseConfig):
    """A config of Optimum that refuses unknown settings, which `BaseConfig` would keep without a word.

    Args:
        **kwargs: Settings that the subclass does not have.

    Raises:
        RecipeError: There is such a setting.
    """

    def __init__(self, **kwargs: Any):
        refuse_unknown(type(self).__name__, kwargs, self.settings())
        super().__init__()

    @classmethod
    def settings(cls) -> list[str]:
        """Names of all settings."""
        kinds = [kind for kind in cls.__mro__ if issubclass(kind, StrictConfig) and "__init__" in vars(kind)]
        arguments = [each for kind in kinds for each in list(inspect.signature(kind.__init__).parameters.values())[1:]]
        return list(dict.fromkeys(each.name for each in arguments if each.kind is not each.VAR_KEYWORD))

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Create a config from plain data, as `to_dict` returns it or a file contains it.

        Args:
            config_dict: Settings, and the keys that transformers and Optimum add in any version.
            **kwargs: Settings that replace those of `config_dict`, and `return_unused_kwargs`.

        Returns:
            The config; with `return_unused_kwargs` also those of `kwargs` that are no settings.

        Raises:
            RecipeError: There is no such setting, a value is invalid, or the data is that of another kind of config.
        """
        if (kind := config_dict.get("model_type", cls.model_type)) != cls.model_type:
            raise RecipeError(
                f"These are not the settings of a {cls.__name__}",
                value=kind,
                expected=f"model_type {cls.model_type}",
                remedy="load them with the class that wrote them",
            )
        unused = kwargs.pop("return_unused_kwargs", False)
        known = set(cls.settings())
        inherited = (_WRITTEN | set(PretrainedConfig().to_dict())) - known
        settings = {key: value for key, value in config_dict.items() if key not in inherited and key[:1] != "_"}
        others = {key: value for key, value in kwargs.items() if key not in known and key[:1] != "_"}
        if not unused:
            refuse_unknown(cls.__name__, others, known)
        config = cls(**{**settings, **{key: value for key, value in kwargs.items() if key in known}})
        return (config, others) if unused else config

    def update(self, config_dict: dict[str, Any]) -> None:
        """Replace settings; the values are checked as in the constructor.

        Args:
            config_dict: New values of settings by their names.

        Raises:
            RecipeError: There is no such setting, or a value is invalid.
        """
        refuse_unknown(type(self).__name__, config_dict, self.settings())
        checked = type(self)(**{**{name: getattr(self, name) for name in self.settings()}, **config_dict})
        for name in config_dict:
            setattr(self, name, getattr(checked, name))


class RankerCompressionConfig(StrictConfig):
    """Recipe, pruning plan, quantization settings, score calibration and package versions of a compressed checkpoint.

    Saved as `hfcompress_config.json`; `from_pretrained(folder)` loads it.

    Args:
        recipe: The recipe as plain data.
        plan: The pruning plan as plain data; None if nothing was pruned.
        quantization: The quantization settings of each file, by its path.
        versions: Versions of the packages.
        calibration: Scale and shift of the logits of each file, by its path, see `ScoreMap`.
        **kwargs: None; they are in the signature so that an unknown setting is refused by name.

    Raises:
        RecipeError: There is no such setting.
    """

    CONFIG_NAME = "hfcompress_config.json"
    FULL_CONFIGURATION_FILE = "hfcompress_config.json"
    model_type = "hfcompress"

    def __init__(
        self,
        recipe: dict[str, Any] | None = None,
        plan: dict[str, Any] | None = None,
        quantization: dict[str, dict[str, Any]] | None = None,
        versions: dict[str, str] | None = None,
        calibration: dict[str, dict[str, Any]] | None = None,
        **kwargs: Any,
    ):
        self.recipe = recipe
        self.plan = plan
        self.quantization = quantization or {}
        self.versions = versions or {}
        self.calibration = calibration or {}
        super().__init__(**kwargs)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> RankerCompressionConfig:
        """Load the config of a checkpoint.

        Args:
            pretrained_model_name_or_path: A folder, a file, or a Hub id.
            **kwargs: As for `BaseConfig` of Optimum.

        Raises:
            ModelError: There is none, it is damaged, or one of its parts has a wrong type.
        """
        source = Path(pretrained_model_name_or_path)
        path = source if source.is_file() else source / cls.CONFIG_NAME
        if path.is_file():
            _check_types(path)
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        except OSError as error:
            raise ModelError(
                f"{cls.CONFIG_NAME} cannot be opened",
                value=f"{source} ({str(error).splitlines()[0]})",
                expected="a folder that hfcompress wrote, or the id of such a model on the Hub",
                remedy="check the name, and the network if it is a Hub id",
            ) from error


def _check_types(path: Path) -> None:
    """Check the parts of a file; they are plain data, whose own readers check the rest."""
    content = read_object(path)
    for key, kind in _TYPES.items():
        try:
            kind.validate_python(content.get(key))
        except ValidationError as error:
            fault = f"{key}: {error.errors()[0]['msg']}"
            raise damaged(
                path, fault, "the parts that hfcompress writes: recipe, plan, quantization, versions, calibration"
            ) from error
