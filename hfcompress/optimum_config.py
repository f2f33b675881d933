"""RankerCompressionConfig: how a checkpoint was compressed, saved beside it like other configs of Optimum."""

from __future__ import annotations

from typing import Any

from optimum.configuration_utils import BaseConfig


class RankerCompressionConfig(BaseConfig):
    """Recipe, pruning plan, quantization settings and package versions of a compressed checkpoint.

    Saved as `hfcompress_config.json`; `from_pretrained(folder)` loads it.

    Args:
        recipe: The recipe as plain data.
        plan: The pruning plan as plain data; None if nothing was pruned.
        quantization: The quantization settings of each file, by its path.
        versions: Versions of the packages.
        **kwargs: As for `BaseConfig` of Optimum.
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
        **kwargs: Any,
    ):
        self.recipe = recipe
        self.plan = plan
        self.quantization = quantization or {}
        self.versions = versions or {}
        super().__init__(**kwargs)
