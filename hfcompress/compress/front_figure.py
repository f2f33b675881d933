"""The figure of `compress`: quality against latency of everything tried that was exported."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, SymmetricalLogLocator

from hfcompress.compress.tried import Stage, Tried, front
from hfcompress.figures import COLOURS, FAINT, INK, png, styled

_STYLE: dict[Stage, tuple[str, str]] = {
    "teacher": ("*", INK),
    "int8": ("s", COLOURS[1]),
    "one-shot": ("o", COLOURS[4]),
    "short recovery": ("^", COLOURS[2]),
    "full recovery": ("D", COLOURS[0]),
}


@styled
def front_figure(tried: Sequence[Tried], max_loss: float) -> bytes:
    """Draw what was tried: loss of nDCG@10 against the teacher on the same queries, over median latency.

    The line joins what nothing else beats in both, numbered from the fastest on and named in the legend, where the
    names cover no point; the dotted line is the largest loss allowed.

    Returns:
        A PNG image that is the same for the same input.
    """
    figure = Figure(figsize=(8.0, 5.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    best = front(tried)
    axes.plot([_ms(each) for each in best], [-each.loss for each in best], color=INK, linewidth=1.0, zorder=1)
    shown: list[Artist] = []
    for stage, (marker, colour) in _STYLE.items():
        points = [each for each in tried if each.stage == stage and each.p50_ms is not None]
        if points:
            shown.append(
                axes.scatter(
                    [_ms(each) for each in points],
                    [-each.loss for each in points],
                    marker=marker,
                    color=colour,
                    s=140 if marker == "*" else 60,
                    label=stage,
                    zorder=3,
                )
            )
    bound = f"largest loss allowed ({max_loss:g})"
    shown.append(axes.axhline(-max_loss, color=INK, linestyle=":", linewidth=1.4, label=bound))
    names: list[Artist] = []
    for number, each in enumerate(best, 1):
        point = (_ms(each), -each.loss)
        axes.annotate(str(number), point, xytext=(-13, 5), textcoords="offset points", fontsize=9, weight="bold")
        names += axes.plot([], [], color=INK, linestyle="none", marker=f"${number}$", label=each.name)
    axes.set_yscale("symlog", linthresh=2 * max_loss)  # a model before its recovery may lose a hundred times as much
    axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=max_loss, subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.12)
    axes.set_xlabel("median time of one query with its candidates, ms (log scale)")
    axes.set_ylabel("nDCG@10 less that of the teacher")
    axes.set_title(f"What was tried (losses over {2 * max_loss:g} on a log scale)", loc="left", fontsize=11)
    axes.grid(color=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=shown, loc="outside lower left", frameon=False, fontsize=9)
    figure.legend(handles=names, loc="outside lower right", frameon=False, fontsize=9)
    return png(figure)


def _ms(each: Tried) -> float:
    assert each.p50_ms is not None
    return each.p50_ms
