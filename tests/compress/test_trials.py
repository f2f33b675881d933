"""Trials: their Pareto front, their order, their file and their figure."""

from __future__ import annotations

import json
from pathlib import Path

from hfcompress.compress.trials import Trial, load, pareto_front, ranked, save, trials_figure


def trial(name: str, loss: float, speedup: float | None = None, stage: str = "one-shot") -> Trial:
    p50 = 100 / speedup if speedup else None
    return Trial(
        name=name, stage=stage, pruning_speedup=1, ndcg=0.5 - loss, difference=-loss, speedup=speedup, p50_ms=p50,
        megabytes=None, seconds=1,
    )  # fmt: skip


def test_the_front_and_the_ranking() -> None:
    found = [
        trial("teacher", 0.0, 1.0), trial("int8", 0.001, 4.0), trial("slow", 0.002, 3.0), trial("fast", 0.05, 9.0),
        trial("untimed", 0.0), trial("worse", 0.06, 8.0),
    ]  # fmt: skip
    assert [each.name for each in pareto_front(found)] == ["fast", "int8", "teacher"]
    on_test = trial("on test", 0.002, 5.0).model_copy(update={"ndcg": 0.3})  # other queries, harder for all
    assert [each.name for each in pareto_front([*found, on_test])] == ["fast", "on test", "int8", "teacher"]
    assert [each.name for each in ranked(found, 0.01)] == ["int8", "slow", "teacher", "untimed", "fast", "worse"]


def test_what_was_tried_is_kept(tmp_path: Path) -> None:
    found = [trial("a", 0.01, 2.0), trial("b", 0.02)]
    save(found, tmp_path / "trials.json")
    assert load(tmp_path / "trials.json") == found


def test_trials_of_earlier_versions_had_a_loss(tmp_path: Path) -> None:
    now = trial("a", 0.01, 2.0).model_dump(mode="json")
    then = {**{key: value for key, value in now.items() if key != "difference"}, "loss": 0.01}
    (tmp_path / "trials.json").write_text(json.dumps([then]))
    assert load(tmp_path / "trials.json") == [trial("a", 0.01, 2.0)]


def test_the_figure_depends_on_the_input_alone() -> None:
    found = [trial("teacher", 0.0, 1.0, "teacher"), trial("int8", 0.001, 4.0, "int8"), trial("untimed", 0.2)]
    image = trials_figure(found, 0.01)
    assert image.startswith(b"\x89PNG") and image == trials_figure(found, 0.01)
    assert image != trials_figure([*found[:2], trial("fast", 0.02, 9.0)], 0.01)
