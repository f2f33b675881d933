"""RankerCompressionConfig: what was done to a checkpoint, saved beside it in Optimum's manner."""

from __future__ import annotations

from typing import Any

from optimum.configuration_utils import BaseConfig


class RankerCompressionConfig(BaseConfig):
    """The recipe, the plan, the int8 settings and the versions behind a compressed checkpoint.

    Saved as `hfcompress_config.json`; `from_pretrained(folder)` reads it back.

    Args:
        recipe: The recipe as plain data.
        plan: The pruning plan as plain data; None if nothing was pruned.
        quantization: The int8 settings, by the path of the file that they made.
        versions: Versions of the packages.
        **kwargs: As for Optimum's `BaseConfig`.
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
