"""The first page in a real browser: an example is ranked by two models, side by side."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from serve_process import Server

from hfcompress.rankers.load import load_ranker

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# A fresh profile, and no connections but those of the page.
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--virtual-time-budget=10000",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    return found


@pytest.mark.slow
def test_the_example_is_ranked_by_both_models(
    start: Callable[..., Server], run_folder: Path, browser: str, tmp_path: Path
) -> None:
    server = start(str(run_folder))
    page = subprocess.run(
        [browser, *OPTIONS, f"--user-data-dir={tmp_path}", "--dump-dom", f"{server.url}/#example"],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    query = re.search(r'\["(how do I sort[^"]*)", \[', page)
    assert query is not None
    rankings = {}
    for side, folder in (("left", run_folder / ".hfcompress" / "teacher"), ("right", run_folder)):
        section = page[page.index(f'<ol id="{side}-list">') :].partition("</ol>")[0]
        rankings[side] = [int(index) for index in re.findall(r'<li[^>]*data-index="(\d+)"', section)]
        texts = re.findall(r'<span class="text">([^<]*)</span>', section)
        assert len(texts) == 8 and len(set(texts)) == 8
        order = {index: text.replace("&lt;", "<") for index, text in zip(rankings[side], texts, strict=True)}
        documents = [order[index] for index in sorted(order)]
        scores = load_ranker(folder).score([(query[1], document) for document in documents])
        ranked = [float(scores[index]) for index in rankings[side]]
        assert all(first >= second - 1e-4 for first, second in pairwise(ranked))
        assert re.search(rf'id="{side}-time">\d+\.\d ms', page)
    moved = sum(first != second for first, second in zip(rankings["left"], rankings["right"], strict=True))
    right = page[page.index('<ol id="right-list">') :]
    assert moved and right.count('<li class="moved"') == moved
