"""Generated pages are up to date, and every key and figure is described."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["recipe.md", "report.md", "cli.md"])
def test_reference_pages_are_up_to_date(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert text == reference().render(page), "run: python scripts/reference.py"
    assert "|  |\n" not in text  # a row without a meaning
