"""The figure of `compress`: quality against latency of everything tried that was exported."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hfcompress.compress.tried import Stage, Tried, front

_STYLE: dict[Stage, tuple[str, str]] = {
    "teacher": ("*", "black"),
    "int8": ("s", "#D55E00"),
    "one-shot": ("o", "#56B4E9"),
    "short recovery": ("^", "#009E73"),
    "full recovery": ("D", "#0072B2"),
}


def front_figure(tried: Sequence[Tried], max_loss: float) -> bytes:
    """Draw what was tried: loss of nDCG@10 against the teacher on the same queries, over median latency.

    The line joins what nothing else beats in both; the dotted line is the largest loss allowed.

    Returns:
        A PNG image that is the same for the same input.
    """
    figure = Figure(figsize=(9.0, 4.8), dpi=150, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    best = front(tried)
    axes.plot([_ms(each) for each in best], [-each.loss for each in best], color="#BBBBBB", linewidth=1.5, zorder=1)
    for stage, (marker, colour) in _STYLE.items():
        points = [each for each in tried if each.stage == stage and each.p50_ms is not None]
        if points:
            axes.scatter(
                [_ms(each) for each in points],
                [-each.loss for each in points],
                marker=marker,
                color=colour,
                s=140 if marker == "*" else 60,
                label=stage,
                zorder=3,
            )
    for each in best:
        axes.annotate(each.name, (_ms(each), -each.loss), xytext=(6, 5), textcoords="offset points", fontsize=7.5)
    axes.axhline(-max_loss, color="black", linestyle=":", linewidth=1.0, label=f"largest loss allowed ({max_loss:g})")
    axes.set_xscale("log")
    axes.margins(0.12)
    axes.set_xlabel("median time of one query with its candidates, ms (log scale)")
    axes.set_ylabel("nDCG@10 less that of the teacher")
    axes.set_title("What was tried", loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8.5)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})
    return content.getvalue()


def _ms(each: Tried) -> float:
    assert each.p50_ms is not None
    return each.p50_ms
