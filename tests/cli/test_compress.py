"""`hfcompress compress`: what it passes on, what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_samples import example_delta, example_report

from hfcompress.cli import main
from hfcompress.cli.compress import _in_words
from hfcompress.compress.compress import Outcome
from hfcompress.compress.goal import Goal
from hfcompress.compress.trials import Trial
from hfcompress.report.report import Alternative


@pytest.mark.parametrize(("target", "code"), [(1000.0, 3), (None, 0)])
def test_the_exit_code_says_whether_the_goal_was_reached(
    target: float | None, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = example_report()
    chosen = next(each for each in report.artifacts if each.delta and each.delta.decision == "non-inferior")
    trial = Trial(
        name="pruned 2x", stage="one-shot", pruning_speedup=2, ndcg=0.5, loss=0.01, speedup=3.0, p50_ms=20.0,
        megabytes=15.0, seconds=9.0,
    )  # fmt: skip
    passed: dict[str, object] = {}

    def fake(model: str, sets: list[str], out: Path, goal: Goal, **options: object) -> Outcome:
        passed.update(options, model=model, sets=sets, goal=goal)
        return Outcome(goal, report, chosen, [trial])

    monkeypatch.setattr("hfcompress.compress.compress.compress", fake)
    command = ["compress", "model", "--data", "words", "--out", str(tmp_path / "out"), "--seed", "7"]
    command += ["--json", str(tmp_path / "result.json"), *(["--target-speedup", f"{target:g}"] if target else [])]
    command += ["--vocabulary", "corpus", "--max-size-mb", "40", "--zero-shot", "a", "--zero-shot", "b"]
    command += ["--no-calibrate"] if target else []
    if code:
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == code
    else:
        main(command)
    printed = capsys.readouterr().out
    assert "Trials" in printed and "pruned 2x *" in printed
    assert ("Not reached" in printed and "slower than the target" in printed) if code else "Reached" in printed
    assert passed["goal"] == Goal(target_speedup=target, vocabulary="corpus", max_size_mb=40) and passed["seed"] == 7
    assert passed["zero_shot"] == ["a", "b"] and passed["calibrate"] is (target is None)
    assert (passed["model"], passed["sets"]) == ("model", ["words"])
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["reached"], result["fast_enough"], result["chosen"]) == (not code, not code, chosen.name)
    assert result["trials"] == result["tried"] == [trial.model_dump(mode="json")]
    assert result["report"]["name"] == report.name


def test_a_model_that_is_too_large_is_named_as_such() -> None:
    report = example_report()
    outcome = Outcome(Goal(max_size_mb=10), report, report.artifacts[1], [])
    assert outcome.fast_enough and not outcome.small_enough and not outcome.reached
    words = _in_words(outcome, Path("out"))
    assert words.startswith("Not reached: openvino (9.30x") and "): it takes 14.9 MB, more than 10. The" in words


def test_the_margin_may_be_a_share_to_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And where it is missed, the terminal and the JSON say what would pass, and where it is."""
    delta = example_delta(-0.001, "inconclusive").model_copy(update={"queries": 100, "queries_needed": 900})
    other = Alternative(name="unpruned, openvino int8", speedup=4.6, delta=delta, probability=0.91)
    report = example_report().model_copy(update={"would_pass": other})
    chosen = report.artifacts[0].model_copy(update={"delta": example_delta(-0.012, "inconclusive")})
    goals = []

    def fake(model: str, sets: list[str], out: Path, goal: Goal, **options: object) -> Outcome:
        goals.append(goal)
        return Outcome(goal, report, chosen, [], out / "alternative")

    monkeypatch.setattr("hfcompress.compress.compress.compress", fake)
    command = ["compress", "model", "--data", "words", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--keep", "0.99", "--json", str(tmp_path / "result.json")])
    assert ended.value.code == 3 and goals == [Goal(keep=0.99)]
    printed = " ".join(capsys.readouterr().out.split())
    assert "4.6x would pass: unpruned, openvino int8, with a probability of 91%" in printed
    assert f"it is in {tmp_path / 'out' / 'alternative'}" in printed
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["would_pass"]["speedup"], result["alternative"]) == (4.6, "alternative")
    with pytest.raises(SystemExit) as ended:  # also where the loss is that of the default
        main([*command, "--keep", "0.99", "--max-loss", "0.01"])
    assert ended.value.code == 2 and "The margin is given in two ways" in capsys.readouterr().err
