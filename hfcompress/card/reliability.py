"""The reliability figure of a model card: how often pairs with a score are relevant."""

from __future__ import annotations

from itertools import cycle

from matplotlib.figure import Figure

from hfcompress.card.figures import COLOURS, FAINT, INK, MARKERS, png, styled
from hfcompress.report.fidelity import ScoreFidelity


@styled
def reliability(found: ScoreFidelity) -> bytes:
    """Plot the share of relevant pairs over their mean score, for the teacher and every artifact.

    A threshold means the same on both where the lines lie on each other, whether or not the teacher's scores are
    probabilities (Niculescu-Mizil and Caruana, "Predicting good probabilities with supervised learning", ICML 2005).
    Vertical lines are the thresholds of the report, dashed the best one.

    Returns:
        A PNG image. The horizontal axis shows the score that `rank` returns: in tenths if it is a sigmoid, else in
        tenths of the teacher's pairs. The area of a marker grows with the pairs behind it.
    """
    figure = Figure(figsize=(8.0, 5.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    most = max((each.pairs for each in found.reliability), default=1)
    lines = [("teacher", found.reliability), *((each.name, each.reliability) for each in found.artifacts)]
    styles = zip((INK, *COLOURS * len(lines)), cycle(("*", *MARKERS)), strict=False)
    for (name, bins), (colour, marker) in zip(lines, styles, strict=False):
        scores, relevant = [each.score for each in bins], [each.relevant for each in bins]
        axes.plot(scores, relevant, color=colour, linewidth=1.2, zorder=2)
        sizes = [30 + 120 * each.pairs / most for each in bins]
        axes.scatter(scores, relevant, s=sizes, color=colour, marker=marker, label=name, zorder=3)
    for threshold in found.thresholds:
        axes.axvline(threshold.score, color=INK, linestyle="--" if threshold.best else ":", linewidth=0.9, zorder=1)
    if found.activation == "Sigmoid":
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2, zorder=0)
    axes.set_ylim(-0.03, 1.03)
    name = "logit" if found.activation == "Identity" else f"{found.activation} of the logit"
    axes.set_xlabel(f"score ({name}), mean of each bin; thresholds are vertical, the best dashed")
    axes.set_ylabel("share of relevant pairs")
    axes.set_title("Reliability of the scores on test pairs", loc="left", fontsize=11)
    axes.grid(color=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    return png(figure)
