"""Score fidelity in the card and in the terminal, and what older cards say instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_samples import example_report

from hfcompress.card import render, write_card
from hfcompress.card.fidelity import lines
from hfcompress.card.reliability import reliability
from hfcompress.report.fidelity import (
    ArtifactFidelity,
    Estimate,
    ReliabilityBin,
    ScoreDrift,
    ScoreFidelity,
    ScoreMap,
    Threshold,
    ThresholdDecisions,
    ThresholdFidelity,
)

OFF = "calibrate: false"
NAMES = [artifact.name for artifact in example_report().artifacts]


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.01, high=value + 0.01)


def example_fidelity(folded: bool = True, activation: str = "Sigmoid") -> ScoreFidelity:
    decisions = ThresholdDecisions(accepted=0.0625, precision=estimate(0.6), recall=estimate(0.75))
    nothing = ThresholdDecisions(accepted=0.0, precision=None, recall=estimate(0.0))
    bins = [ReliabilityBin(score=0.05, relevant=0.01, pairs=900), ReliabilityBin(score=0.95, relevant=0.8, pairs=100)]
    fitted = ScoreMap(
        scale=1.25, shift=-0.5, split="dev", queries=200, pairs=4000, before=1.5, after=0.9, folded=folded,
        reason="" if folded else OFF,
    )  # fmt: skip
    own = [
        ThresholdFidelity(changed=estimate(0.019), artifact=decisions, corresponding=None if folded else 0.8),
        ThresholdFidelity(changed=estimate(0.05), artifact=nothing, corresponding=None if folded else 0.6),
    ]
    return ScoreFidelity(
        activation=activation,
        queries=120,
        pairs=2400,
        judged_queries=100,
        confidence=0.95,
        thresholds=[
            Threshold(score=0.9875, logit=4.37, best=True, teacher=decisions),
            Threshold(score=0.5, logit=0.0, best=False, teacher=nothing),
        ],
        reliability=bins,
        artifacts=[
            ArtifactFidelity(
                name=name,
                map=fitted,
                logits=ScoreDrift(rms=0.9, p95=1.8),
                activated=ScoreDrift(rms=0.07, p95=0.12),
                query_shift=0.6,
                thresholds=own,
                reliability=bins,
            )
            for name in NAMES
        ],
    )


def section(text: str, title: str) -> str:
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_section_of_calibrated_artifacts() -> None:
    text = render(example_report(score_fidelity=example_fidelity()))
    found = section(text, "Score fidelity")
    assert f"| `{NAMES[0]}` | 0.9 | 1.8 | 0.6 | 0.07 | 0.12 | 1.25 | -0.5 | yes |" in found
    assert "| best, 0.988 (logit 4.37) | teacher |  | 6.2% | 60.0% [59.0, 61.0] | 75.0% [74.0, 76.0] |" in found
    assert f"|  | `{NAMES[0]}` | 1.9% [0.9, 2.9] | 6.2% | 60.0% [59.0, 61.0] |" in found
    assert "| 0.5 (logit 0) | teacher |  | 0.0% | none | 0.0% [-1.0, 1.0] |" in found
    assert "fitted on 4,000 pairs of dev" in found and "correspond" not in found
    assert "](figures/reliability.png)" in found
    limits = section(text, "Limits")
    assert "a threshold that was tuned on the teacher can stay" in limits and "must be set again" not in limits


def test_thresholds_that_correspond_where_calibration_is_off() -> None:
    text = render(example_report(score_fidelity=example_fidelity(folded=False)))
    found = section(text, "Score fidelity")
    assert "### Thresholds that correspond to the teacher's" in found and f"({OFF})" in found
    assert "| best, 0.988 (logit 4.37) | 0.8 | 0.8 |" in found and "| 0.5 (logit 0) | 0.6 | 0.6 |" in found
    assert "| no |" in found
    assert "thresholds that correspond to the teacher's" in section(text, "Limits")


def test_scores_that_are_logits_have_one_drift() -> None:
    found = section(render(example_report(score_fidelity=example_fidelity(activation="Identity"))), "Score fidelity")
    assert "Identity: RMS" not in found and f"| `{NAMES[0]}` | 0.9 | 1.8 | 0.6 | 1.25 | -0.5 | yes |" in found


def test_older_reports_say_what_they_said() -> None:
    text = render(example_report())
    assert "Score fidelity" not in text
    assert "a threshold that was tuned on the teacher must be set again." in section(text, "Limits")


@pytest.mark.parametrize("activation", ["Sigmoid", "Identity"])
def test_the_figure_is_drawn_and_the_same_each_time(activation: str, tmp_path: Path) -> None:
    found = example_fidelity(activation=activation)
    drawn = reliability(found)
    assert drawn.startswith(b"\x89PNG") and drawn == reliability(found)
    written = write_card(tmp_path, example_report(score_fidelity=found))
    assert tmp_path / "figures" / "reliability.png" in written


def test_lines_for_the_terminal() -> None:
    text = "\n".join(lines(example_fidelity(folded=False), [NAMES[0]]))
    assert NAMES[1] not in text and "not calibrated: the teacher's scale is 1.25 * logit -0.5" in text
    assert "threshold best, 0.988 (logit 4.37), which corresponds to 0.8 here: 1.9% [0.9, 2.9] of the pairs" in text
    assert "precision 60.0% [59.0, 61.0] (teacher 60.0%), recall" in text and "precision none" in text
    assert len(lines(example_fidelity())) == 3 * len(NAMES)
