"""The model card: RunReport -> README.md and its figures. It depends on the report alone, not even on the time."""

from __future__ import annotations

from pathlib import Path

from hfcompress.card import fidelity, figures, method, opening, pruning, queries, results, verdicts, zero_shot
from hfcompress.card.front_matter import front_matter
from hfcompress.card.reliability import reliability
from hfcompress.card.snippets import loading_snippets
from hfcompress.evaluation.explain import primary_artifact
from hfcompress.models.layout import CARD_FILE, RELIABILITY_FILE, STRUCTURE_FILE
from hfcompress.report.report import RunReport
from hfcompress.utils import text as md
from hfcompress.utils.files import write_bytes, write_text


def write_card(folder: Path, report: RunReport) -> list[Path]:
    """Write the card and its figures into `folder`. The same report gives the same bytes.

    Returns:
        Paths of the written files: `README.md`, `figures/pareto.png`, `figures/structure.png` for a pruned model and,
        if the report has score fidelity, `figures/reliability.png`.
    """
    written = [write_bytes(folder / figures.PARETO_FILE, figures.pareto(report))]
    if report.pruning:
        written.append(write_bytes(folder / STRUCTURE_FILE, figures.structure(report.pruning)))
    if report.score_fidelity:
        written.append(write_bytes(folder / RELIABILITY_FILE, reliability(report.score_fidelity)))
    return [write_text(folder / CARD_FILE, render(report)), *written]


def render(report: RunReport) -> str:
    """Render the card as Markdown with front matter."""
    subject = primary_artifact(report.artifacts, report.sequence)
    sections = [
        f"---\n{front_matter(report, subject)}\n---",
        f"# {report.name}",
        opening.verdict(report, subject),
        opening.origin(report),
        results.quality(report),
        results.more_quality(report),
        results.speed(report),
        verdicts.section(report),
        zero_shot.section(report),
        f"## How to load it\n\n{loading_snippets(report)}",
        pruning.structure(report),
        queries.moved(report, subject),
        queries.kinds(report),
        results.agreement(report),
        fidelity.section(report),
        results.stability(report),
        method.limits(report),
        method.measuring(report),
        method.cost(report),
        f"## Recipe\n\n{md.fence(report.recipe, 'yaml')}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"
