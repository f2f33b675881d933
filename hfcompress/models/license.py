"""The licence of a model, by its card."""

from __future__ import annotations

from pathlib import Path

import yaml
from huggingface_hub import ModelCard, hf_hub_download

from hfcompress.models.adapters import adapter_folder, base_of
from hfcompress.models.layout import CARD_FILE
from hfcompress.models.load import resolve


def license_of(name: str) -> str:
    """Licence in the front matter of a model's card; empty if there is no card or it names no licence.

    An adapter whose card names none has that of its base model.

    Args:
        name: A folder, a Hub id, or `package:NAME/FOLDER`.
    """
    if (adapter := adapter_folder(name)) is not None:
        return _license_in(name, adapter) or license_of(base_of(adapter))
    return _license_in(name, Path(resolve(name)))


def _license_in(name: str, folder: Path) -> str:
    try:
        path = folder / CARD_FILE if folder.is_dir() else Path(hf_hub_download(name, CARD_FILE))
        fields = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, TypeError, yaml.YAMLError):  # no card, no network, or invalid front matter
        return ""
    licence = fields.get("license_name") if fields.get("license") == "other" else fields.get("license")
    return licence if isinstance(licence, str) and licence != "unknown" else ""
