"""The cache folder of the package: measurements and scores that runs in any folder share."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "HFCOMPRESS_CACHE"


def cache_folder() -> Path:
    """The folder of `HFCOMPRESS_CACHE`, or `hfcompress` in `XDG_CACHE_HOME` or `~/.cache`.

    It holds `latency` (measured costs of layers), `scores` (scores of models in fp32) and `merged` (models into which
    adapters were merged). Everything in it is made
    again if it is missing, so it may be deleted at any time.
    """
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "hfcompress")


def cache_bytes() -> int:
    """Size of the cache folder in bytes."""
    total = 0
    for folder, _, names in os.walk(cache_folder()):
        for name in names:
            path = Path(folder, name)
            total += path.stat().st_size if path.exists() else 0  # another process may have deleted it
    return total
