"""Tables of results at any width, and the verdict in words."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from hfcompress.cli.tables import print_report, verdict
from hfcompress.report.delta import Verdict
from hfcompress.report.report import RunReport

CARDS = Path(__file__).parents[2] / "model_cards"


@pytest.fixture
def report() -> RunReport:
    return RunReport.load(CARDS / "quickstart")


@pytest.mark.parametrize("name", ["quickstart", "selqa-googleq-compressed"])
@pytest.mark.parametrize("width", [80, 132])
def test_tables_fit(name: str, width: int) -> None:
    report, screen = RunReport.load(CARDS / name), io.StringIO()
    print_report(report, Console(file=screen, width=width))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    shown = " ".join(screen.getvalue().split())
    for artifact in report.artifacts:
        assert artifact.delta is not None
        assert f"[{artifact.delta.ci_low:+.4f}, {artifact.delta.ci_high:+.4f}]" in shown
        assert f"{artifact.speedup:.2f}x" in shown and artifact.name.split("-int8")[0] in shown
    assert ("MRR@10" in shown) == (width > 80)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            "non-inferior",
            "student-openvino-int8-static ranks as well as its teacher: a loss of {margin:g} nDCG@10 or more",
        ),
        ("inferior", "inferior, it loses more than {margin:g} (95% interval ["),
        ("inconclusive", "inconclusive, these queries cannot tell whether it loses more than {margin:g}"),
    ],
)
def test_the_verdict_in_words(report: RunReport, given: Verdict, words: str) -> None:
    artifacts = [
        each.model_copy(
            update={"delta": each.delta and each.delta.model_copy(update={"verdict": given, "corrected": given})}
        )
        for each in report.artifacts
    ]
    text = verdict(report.model_copy(update={"artifacts": artifacts}))
    assert artifacts[0].delta is not None
    assert (
        words.format(margin=artifacts[0].delta.margin) in text
        and "times as fast" in text
        and f"instead of {report.teacher.size_bytes / 1e6:.1f} MB" in text
    )
    assert ("is not shown to rank as well as its teacher" in text) == (given != "non-inferior")


def test_a_teacher_that_is_no_better_than_the_first_stage(report: RunReport) -> None:
    def shown() -> str:
        screen = io.StringIO()
        print_report(report, Console(file=screen, width=120))
        return " ".join(screen.getvalue().split())

    assert "no better than" not in shown()
    report.first_stage.quality["ndcg@10"] = 0.6
    assert "ranks these queries no better than BM25 alone (nDCG@10 0.4821 against 0.6000)" in shown()


def test_a_report_without_artifacts_has_no_verdict(report: RunReport) -> None:
    assert verdict(report.model_copy(update={"artifacts": []})).startswith("No verdict")
