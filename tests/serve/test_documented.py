"""The curl lines of the documentation are answered as it says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "serve.md"


def curl_lines() -> list[list[str]]:
    text = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^curl .*-d .*$", text, re.MULTILINE)]


def test_curl_lines(serving: Callable[..., Any], run_folder: Path) -> None:
    lines = curl_lines()
    assert len(lines) == 4
    with serving(f"mine={run_folder}") as client:
        for _, address, _, header, _, body in lines:
            name, value = header.split(": ")
            path = address.removeprefix("http://127.0.0.1:8080")
            response = client.post(path, content=body, headers={name: value})
            assert response.status_code == 200
            found = response.json()
            hits = found if isinstance(found, list) else found["results"]
            assert len(hits) == (1 if "top_n" in body else 2)


def test_the_page_names_the_default_limits() -> None:
    from hfcompress.serve.settings import ServeSettings

    text, settings = PAGE.read_text(encoding="utf-8"), ServeSettings()
    assert f"{settings.max_bytes >> 20} MiB and {settings.max_tokens} tokens, and {settings.body_seconds:g} sec" in text
    assert f"headers take more than {settings.header_seconds:g} seconds" in text
