"""The model card: RunReport -> README.md and its figures. It reads the report and nothing else, and has no clock."""

from __future__ import annotations

from pathlib import Path

from hfcompress import figures, verdicts
from hfcompress import markdown as md
from hfcompress.card import method, opening, pruning, queries, results
from hfcompress.evaluation.explain import headline as headline_of
from hfcompress.evaluation.report import Artifact, RunReport
from hfcompress.files import write_bytes, write_text
from hfcompress.front_matter import front_matter
from hfcompress.layout import CARD_FILE, STRUCTURE_FILE
from hfcompress.snippets import loading_snippets


def write_card(folder: Path, report: RunReport) -> list[Path]:
    """Write the card and its figures into `folder`; the same report gives the same bytes.

    Returns:
        The files written: `README.md`, `figures/pareto.png` and, if something was pruned, `figures/structure.png`.
    """
    written = [write_bytes(folder / figures.PARETO_FILE, figures.pareto(report))]
    if report.pruning:
        written.append(write_bytes(folder / STRUCTURE_FILE, figures.structure(report.pruning)))
    return [write_text(folder / CARD_FILE, render(report)), *written]


def render(report: RunReport) -> str:
    """Render the card as Markdown with front matter."""
    subject = headline(report)
    sections = [
        f"---\n{front_matter(report, subject)}\n---",
        f"# {report.name}",
        opening.verdict(report, subject),
        opening.origin(report),
        results.quality(report),
        results.more_quality(report),
        results.speed(report),
        verdicts.section(report),
        f"## How to load it\n\n{loading_snippets(report)}",
        pruning.structure(report),
        queries.moved(report, subject),
        queries.kinds(report),
        results.agreement(report),
        results.stability(report),
        method.limits(report),
        method.measuring(report),
        method.cost(report),
        f"## Recipe\n\n{md.fence(report.recipe, 'yaml')}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def headline(report: RunReport) -> Artifact | None:
    """The artefact for which the card speaks, see `hfcompress.evaluation.explain.headline`."""
    return headline_of(report.artifacts)
