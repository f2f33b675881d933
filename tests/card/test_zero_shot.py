"""The card and the terminal on data sets that the run neither trained on nor chose by."""

from __future__ import annotations

import io
from typing import Any

from report_samples import example_delta, example_report
from rich.console import Console

from hfcompress.card import render
from hfcompress.card.zero_shot import warning
from hfcompress.cli.tables import print_report
from hfcompress.report.report import RunReport
from hfcompress.report.structure import VocabularySummary
from hfcompress.report.zero_shot import VocabularyEffect, VocabularyLoss, ZeroShot, ZeroShotSet


def zero_shot_set(name: str, mean: float, queries: int = 300, student: float | None = None) -> ZeroShotSet:
    delta = example_delta(mean, "inconclusive").model_copy(update={"queries": queries})
    return ZeroShotSet(
        name=name, fingerprint="f" * 64, license="", notes=[], first_stage=0.4, teacher=0.6, artifact=0.6 + mean,
        student=student, delta=delta, agreement={"kendall_tau": 0.875, "overlap@10": 0.9}, per_query={},
        teacher_per_query={},
    )  # fmt: skip


def report_with(losses: dict[str, float], **changes: Any) -> RunReport:
    """A report whose artifact `student-int8` has a difference of +0.0013 in domain, at a margin of 0.01."""
    sets = [zero_shot_set(name, mean, student=changes.pop("student", None)) for name, mean in losses.items()]
    pooled = example_delta(sum(losses.values()) / len(sets), "inconclusive").model_copy(update={"queries": 600})
    found = ZeroShot(artifact="student-int8", sets=sets, pooled=pooled if len(sets) > 1 else None, **changes)
    return example_report(zero_shot=found)


def section_of(report: RunReport) -> str:
    return render(report).partition("## Zero-shot")[2].partition("\n## ")[0]


def shown(report: RunReport) -> str:
    screen = io.StringIO()
    print_report(report, Console(file=screen, width=120))
    return screen.getvalue()


def test_without_zero_shot_sets_nothing_is_said() -> None:
    report = example_report()
    assert report.zero_shot is None and warning(report) == ""
    assert "ero-shot" not in render(report) and "ero-shot" not in shown(report)
    assert "Other domains, languages and first stages were not measured" in render(report)


def test_the_table_of_sets() -> None:
    report = report_with({"medical": -0.004, "forum": -0.002})
    section = section_of(report)
    head, _, *rows = [line for line in section.splitlines() if line.startswith("|")]
    assert head == (
        "| Set | Queries | First stage | Teacher | Artifact | Difference (95% interval) | Verdict | Kendall tau-b |"
    )
    assert rows == [
        "| medical | 300 | 0.4000 | 0.6000 | 0.5960 | -0.0040 [-0.0200, +0.0200] | inconclusive | 0.8750 |",
        "| forum | 300 | 0.4000 | 0.6000 | 0.5980 | -0.0020 [-0.0200, +0.0200] | inconclusive | 0.8750 |",
        "| pooled | 600 |  |  |  | -0.0030 [-0.0200, +0.0200] | inconclusive |  |",
    ]
    assert "Warning" not in section and "than those of medical, forum (zero-shot) were not measured" in render(report)
    single = section_of(report_with({"medical": -0.004}, student=0.5555))
    assert (
        "pooled" not in single.lower()
        and "| Student in fp32 | Artifact |" in single
        and "| 0.5555 | 0.5960 |" in single
    )


def test_a_loss_that_exceeds_that_in_domain_by_more_than_the_margin_is_warned_of() -> None:
    assert warning(report_with({"medical": -0.0085})) == ""  # 0.0098 below +0.0013
    words = "outside its domain this model ranks worse, -0.0390 on medical, -0.0192 on all of them (in domain +0.0013)"
    report = report_with({"medical": -0.039, "forum": 0.0006})
    assert warning(report).startswith(words) and "recover.also" in warning(report)
    assert f"**Warning:** {words}" in section_of(report)
    assert f"WARNING: {words}" in " ".join(shown(report).split())
    unpruned = report.model_copy(update={"pruning": None})
    assert warning(unpruned).startswith(words) and "recover.also" not in warning(unpruned)


def test_the_terminal_shows_every_set() -> None:
    text = " ".join(shown(report_with({"medical": -0.004, "forum": -0.002})).split())
    assert "Zero-shot: student-int8 on other data" in text and "WARNING" not in text
    assert "medical 300 0.6000 0.5960 -0.0040 inconclusive 0.88" in text and "pooled 600" in text


def test_the_loss_with_and_without_the_smaller_vocabulary() -> None:
    effect = VocabularyEffect(
        in_domain=VocabularyLoss(queries=200, changed_share=0.0, cut=-0.004, whole=-0.004),
        sets={
            "medical": VocabularyLoss(queries=100, changed_share=0.375, cut=-0.04, whole=-0.02),
            "forum": VocabularyLoss(queries=300, changed_share=0.125, cut=-0.02, whole=-0.02),
        },
    )
    report = report_with({"medical": -0.04, "forum": -0.02}, vocabulary=effect)
    section = section_of(report)
    assert "| api-search (in domain) | 0.0% | -0.0040 | -0.0040 |" in section
    assert "| medical | 37.5% | -0.0400 | -0.0200 |" in section
    assert "| pooled | 18.8% | -0.0250 | -0.0200 |" in section  # means over queries
    assert "Rare tokens" not in section
    assert report.pruning is not None
    summary = VocabularySummary(tokens_before=9, tokens_after=5, min_count=2, held_out_pairs=1, changed_share=0.0)
    rare = report.model_copy(update={"pruning": report.pruning.model_copy(update={"vocabulary": summary})})
    assert "Rare tokens of the training texts" in section_of(rare)
