"""The figures of a model card on speed and structure, as PNG bytes, and the style of all its figures.

They are drawn from the report alone and are deterministic.

The background is transparent. Text has a contrast of at least 4, and every other colour of at least 3, with white and
with the dark pages of GitHub and the Hub, so one file is readable on all of them. (`<picture>` with a dark source is no
alternative: it needs absolute addresses, which a card does not have.) The first colours are those of Okabe and Ito,
which colour-blind readers can distinguish. The colour map is `viridis` without its ends; it contains no grey, the
colour of pruned structures.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import wraps
from itertools import cycle
from typing import Any, ParamSpec

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from hfcompress.report.report import Artifact, RunReport
from hfcompress.report.structure import PruningSummary
from hfcompress.utils import text as md

PARETO_FILE = "figures/pareto.png"

INK = "#767676"  # text, axes, the teacher
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8E6FC9", "#948400")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_KEPT = COLOURS[0]
FAINT = (0.5, 0.5, 0.5, 0.16)
_REMOVED: dict[str, Any] = {"facecolor": FAINT, "edgecolor": (0.5, 0.5, 0.5, 0.55), "hatch": "////", "linewidth": 0.0}
_LABEL: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9}
_IMPORTANCE = ListedColormap(colormaps["viridis"](np.linspace(0.25, 0.92, 256)))
_STYLE: Any = {  # matplotlib types every key by its name
    "savefig.facecolor": "none",
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "hatch.linewidth": 0.7,
}

_Arguments = ParamSpec("_Arguments")


def styled(draw: Callable[_Arguments, bytes]) -> Callable[_Arguments, bytes]:
    """Draw with the style of these figures, without changing the user's matplotlib settings."""

    @wraps(draw)
    def drawn(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> bytes:
        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


@styled
def pareto(report: RunReport) -> bytes:
    """Plot quality against speed for the teacher, every artifact and the first stage.

    The vertical bars are the bootstrap intervals of the difference to the teacher, drawn around the artifact. The
    dotted line is the teacher's quality minus the margin: an artifact is non-inferior if its bar lies above this line.

    Returns:
        A PNG image. The horizontal axis shows documents per second on a log scale, the vertical axis mean nDCG@10.
    """
    figure = Figure(figsize=(8.0, 5.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    teacher = report.teacher
    level = teacher.quality["ndcg@10"]
    axes.axhline(level, color=INK, linewidth=0.8)
    margins = sorted({artifact.delta.margin for artifact in report.artifacts if artifact.delta})
    for margin in margins:
        axes.axhline(level - margin, color=INK, linestyle=":", linewidth=1.4, label=f"teacher - {margin:g} (margin)")
    axes.axhline(
        report.first_stage.quality["ndcg@10"], color=INK, linestyle="--", linewidth=1.2, label="first stage alone"
    )
    _point(axes, teacher, level, INK, "*", "teacher")
    for artifact, colour, marker in zip(report.artifacts, cycle(COLOURS), cycle(MARKERS), strict=False):
        _point(axes, artifact, artifact.quality["ndcg@10"], colour, marker, _label(artifact))
    axes.set_xscale("log")
    speeds = [artifact.latency.docs_per_second for artifact in (teacher, *report.artifacts)]
    axes.set_xlim(min(speeds) / 1.35, max(speeds) * 1.35)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(y=0.12)
    axes.set_xlabel(
        f"documents scored per second, {md.count(teacher.latency.threads, 'thread')}, tokenization counted (log scale)"
    )
    axes.set_ylabel("nDCG@10, mean over test queries")
    axes.set_title(f"{report.name}: quality against speed", loc="left", fontsize=11)
    axes.grid(color=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    # Labels at the points would overlap if artifacts are close to each other, as in a good run.
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    return png(figure)


@styled
def structure(pruning: PruningSummary) -> bytes:
    """Draw the remaining heads and FFN neurons of each layer of the teacher.

    Left: one cell per head, coloured by importance if the head remains, grey and hatched if it was pruned. Right: the
    share of FFN neurons that remain in each layer. A dropped layer is plain grey in both panels.

    Returns:
        A PNG image.
    """
    height = max(2.6, 1.3 + 0.3 * pruning.layers_of)
    figure = Figure(figsize=(9.0, height), dpi=150, layout="constrained")
    heads, neurons = figure.subplots(1, 2, sharey=True, width_ratios=(1.6, 1.0))
    _heads(figure, heads, pruning)
    _neurons(neurons, pruning)
    heads.set_ylim(pruning.layers_of - 0.5, -0.5)
    heads.set_ylabel("layer, from 0")
    heads.yaxis.set_major_locator(MaxNLocator(nbins=24, integer=True))
    return png(figure)


def _label(artifact: Artifact) -> str:
    return artifact.name if artifact.device == "cpu" else f"{artifact.name} on {artifact.device}"


def _point(axes: Axes, artifact: Artifact, quality: float, colour: str, marker: str, name: str) -> None:
    delta = artifact.delta
    # The interval is that of the difference. Around the artifact's mean it can be compared with the line of the margin.
    bars = None if delta is None else np.maximum([[delta.mean - delta.ci_low], [delta.ci_high - delta.mean]], 0.0)
    axes.errorbar(
        [artifact.latency.docs_per_second],
        [quality],
        yerr=bars,
        fmt=marker,
        color=colour,
        markersize=14 if marker == "*" else 9,
        capsize=4,
        elinewidth=1.4,
        label=f"{name} ({artifact.speedup:.1f}x)",
        zorder=3,
    )


def _heads(figure: Figure, axes: Axes, pruning: PruningSummary) -> None:
    kept = {layer.layer: layer for layer in pruning.layers}
    importance = dict(enumerate(pruning.head_importance))
    most = max((layer.heads_of for layer in pruning.layers), default=1)
    values = [importance[row][head] for row, layer in kept.items() if row in importance for head in layer.heads]
    scale = _scale(values)
    colours = ScalarMappable(scale, _IMPORTANCE)
    widest = 1
    for row in range(pruning.layers_of):
        width = len(importance[row]) if row in importance else most
        widest = max(widest, width)
        for head in range(width):
            cell = (head - 0.45, row - 0.44)
            if row in kept and head in kept[row].heads:
                colour = colours.cmap(scale(importance[row][head])) if row in importance else _KEPT
                axes.add_patch(Rectangle(cell, 0.9, 0.88, facecolor=colour, edgecolor=INK, linewidth=0.6))
            elif row in kept:
                axes.add_patch(Rectangle(cell, 0.9, 0.88, **_REMOVED))
        if row not in kept:
            axes.add_patch(Rectangle((-0.45, row - 0.44), width - 0.1, 0.88, facecolor=FAINT))
            axes.text((width - 1) / 2, row, "layer dropped", **_LABEL)
    axes.set_xlim(-0.5, widest - 0.5)
    axes.spines[:].set_visible(False)
    axes.set_title("attention heads", loc="left", fontsize=11)
    axes.set_xlabel("head, from 0")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=16, integer=True))
    axes.legend(
        handles=[Patch(label="removed", **_REMOVED)],
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=9,
    )
    if values:
        label = f"importance ({pruning.importance}{', log scale' if isinstance(scale, LogNorm) else ''})"
        figure.colorbar(colours, ax=axes, location="left", label=label, fraction=0.05, pad=0.02)


def _neurons(axes: Axes, pruning: PruningSummary) -> None:
    kept = {layer.layer: layer for layer in pruning.layers}
    for row in range(pruning.layers_of):
        if row not in kept:
            axes.add_patch(Rectangle((0, row - 0.36), 1, 0.72, facecolor=FAINT))
            axes.text(0.5, row, "layer dropped", **_LABEL)
            continue
        share = kept[row].ffn / kept[row].ffn_of if kept[row].ffn_of else 0.0
        axes.barh(row, 1.0, height=0.72, color=FAINT)
        axes.barh(row, share, height=0.72, color=_KEPT)
        axes.text(1.03, row, f"{kept[row].ffn:,} of {kept[row].ffn_of:,}", va="center", fontsize=9)
    axes.set_xlim(0, 1.38)
    axes.set_title("FFN neurons kept", loc="left", fontsize=11)
    axes.set_xlabel("share of the teacher's")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25%", "50%", "75%", "100%"])
    axes.tick_params(axis="y", left=False, labelleft=False)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _scale(values: list[float]) -> Normalize:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    # Fisher scores span orders of magnitude: on a linear scale almost all heads would look alike.
    if low > 0 and high / low > 30:
        return LogNorm(low, high)
    return Normalize(low, high if high > low else low + 1.0)


def png(figure: Figure) -> bytes:
    """Render a figure to a deterministic PNG image."""
    content = io.BytesIO()
    # Without the version of matplotlib in its header, the image depends on the report alone.
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})
    return content.getvalue()
