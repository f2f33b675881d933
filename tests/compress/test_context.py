"""What all parts of `compress` share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hfcompress.compress.compress import recipe_name
from hfcompress.compress.context import first_stage_quality
from hfcompress.data.ranking import RankingData


def test_a_recipe_is_named_after_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my-reranker"
    folder.mkdir()
    monkeypatch.chdir(folder)
    names = {".": "my-reranker", "org/a model": "a-model", str(folder): "my-reranker", "模型": "model", "..": None}
    for given, name in names.items():
        assert recipe_name(given) == f"{name or tmp_path.name}-compressed"


def test_the_order_of_the_candidates_is_measured_as_a_ranking(word_data: RankingData) -> None:
    """With the relevant document first everywhere it is perfect."""
    dev = word_data.split("dev")
    best = {
        query: sorted(listed, key=lambda d: -dev.qrels[query].get(d, 0)) for query, listed in dev.candidates.items()
    }
    data = replace(word_data, splits={"dev": replace(dev, candidates=best)})
    assert first_stage_quality(data, "dev") == pytest.approx(1.0)
    data = replace(word_data, splits={"dev": replace(dev, candidates={q: listed[::-1] for q, listed in best.items()})})
    assert first_stage_quality(data, "dev") < 0.9
