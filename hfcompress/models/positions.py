"""How many tokens a model has positions for."""

from __future__ import annotations

from transformers import PretrainedConfig

from hfcompress.errors import ModelError
from hfcompress.models.architectures import architecture_of


def position_limit(config: PretrainedConfig) -> int:
    """Maximum input length in tokens; families that number positions from `pad_token_id + 1` lose the first ones.

    Raises:
        ModelError: The family is not supported.
    """
    offset = config.pad_token_id + 1 if architecture_of(config).positions_after_padding else 0
    return config.max_position_embeddings - offset


def check_max_length(max_length: int | None, config: PretrainedConfig, setting: str = "max_length") -> None:
    """Check that a maximum input length fits the positions of a model.

    Args:
        max_length: Length in tokens; None is always accepted.
        config: Config of the model.
        setting: Name of the setting, for the error message.

    Raises:
        ModelError: `max_length` exceeds the positions of the model, or its family is not supported.
    """
    limit = position_limit(config)
    if max_length is not None and max_length > limit:
        raise ModelError(
            f"{setting} is longer than the model's positions",
            value=max_length,
            expected=f"at most {limit} tokens",
            remedy=f"set {setting} to {limit} or less",
        )
