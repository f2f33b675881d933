"""Keep the card and the report of a finished run under model_cards/: python scripts/keep_card.py out/quickstart

A kept report contains ids and numbers, and texts only if the licence of the data permits it. The table in README.md is
rewritten from the report of the quickstart; scripts/figures_for_docs.py draws the figures of the docs again.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from hfcompress.card import write_card
from hfcompress.report.report import Artifact, RunReport

ROOT = Path(__file__).parents[1]
TABLE = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)


def results_table(report: RunReport) -> str:
    """The results table of README.md."""
    margin = next((each.delta.margin for each in report.artifacts if each.delta), 0.0)
    rows = [
        f"| | nDCG@10 | difference (95% interval) | verdict at {margin:g} | docs/s | speed-up | MB |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: |",
        f"| {report.first_stage.name} | {report.first_stage.quality['ndcg@10']:.4f} | | | | | |",
        *(row(artifact) for artifact in (report.teacher, *report.artifacts)),
    ]
    return "\n".join(rows) + "\n"


def row(artifact: Artifact) -> str:
    """The row of one artifact."""
    delta = artifact.delta
    difference = f"{delta.mean:+.4f} [{delta.ci_low:+.4f}, {delta.ci_high:+.4f}]" if delta else ""
    return (
        f"| {artifact.name} | {artifact.quality['ndcg@10']:.4f} | {difference} | {delta.decision if delta else ''} "
        f"| {artifact.latency.docs_per_second:.0f} | {artifact.speedup:.2f}x | {artifact.size_bytes / 1e6:.1f} |"
    )


def main(folder: Path) -> None:
    """Copy the report, render the card, and update README.md."""
    report = RunReport.load(folder)
    target = ROOT / "model_cards" / report.name
    report.save(target)
    write_card(target, report)
    if report.name == "quickstart":
        readme = ROOT / "README.md"
        text = readme.read_text(encoding="utf-8")
        readme.write_text(TABLE.sub(lambda match: match[1] + results_table(report) + match[2], text), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
