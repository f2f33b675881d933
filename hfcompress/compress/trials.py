"""The trials of `compress`, their Pareto front of quality and speed, and its figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, SymmetricalLogLocator
from pydantic import ConfigDict, TypeAdapter, model_validator

from hfcompress.card.figures import COLOURS, FAINT, INK, png, styled
from hfcompress.report.delta import Delta
from hfcompress.utils.files import write_text
from hfcompress.utils.settings import Closed

Stage = Literal["teacher", "int8", "one-shot", "short recovery", "full recovery"]


class Trial(Closed):
    """A model that was evaluated.

    Attributes:
        name: Description, e.g. `pruned 2x`.
        stage: How far it was taken.
        pruning_speedup: Speed-up by pruning that was asked for; 1 for the unpruned model.
        ndcg: Mean nDCG@10 on dev, where choices are made; on test for the final run.
        difference: `ndcg` minus nDCG@10 of the teacher on the same queries.
        speedup: Measured speed-up over the teacher in fp32 PyTorch; None if it was not exported.
        p50_ms: Median latency of one query with its candidates; None if it was not exported.
        megabytes: Size of a deployment, in 10^6 bytes; None if it was not exported.
        seconds: Duration of the trial.
        decision: The decision that followed.
        delta: `difference` with its interval; None for the teacher.
        probability: Probability that its verdict on test is non-inferior, by its differences on dev; None for the
            teacher, and for what was measured on test.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    stage: Stage
    pruning_speedup: float
    ndcg: float
    difference: float
    speedup: float | None
    p50_ms: float | None
    megabytes: float | None
    seconds: float
    decision: str = ""
    delta: Delta | None = None
    probability: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_a_loss(cls, values: Any) -> Any:
        """Read trials of earlier versions, which had the loss, the difference with the other sign."""
        if isinstance(values, dict) and "loss" in values:
            others = {name: value for name, value in values.items() if name != "loss"}
            return {**others, "difference": -values["loss"]}
        return values


_LIST = TypeAdapter(list[Trial])


def pareto_front(trials: Sequence[Trial]) -> list[Trial]:
    """The Pareto-optimal trials in difference and latency, the fastest first; trials without a latency are left out.

    The difference counts, since it is to the teacher on the same queries: nDCG@10 on dev and on test do not compare.
    """
    timed = sorted(
        (each for each in trials if each.p50_ms is not None), key=lambda each: (each.p50_ms, -each.difference)
    )
    best: list[Trial] = []
    for each in timed:
        if not best or each.difference > best[-1].difference:
            best.append(each)
    return best


def ranked(trials: Sequence[Trial], max_loss: float) -> list[Trial]:
    """Trials, the most useful first: those within the largest loss by speed, then the others by difference."""

    def order(each: Trial) -> tuple[bool, float]:
        within = each.difference >= -max_loss
        return not within, -(each.speedup or 0.0) if within else -each.difference

    return sorted(trials, key=order)


def save(trials: Sequence[Trial], path: Path) -> None:
    """Write trials as JSON."""
    write_text(path, _LIST.dump_json(list(trials), indent=2).decode() + "\n")


def load(path: Path) -> list[Trial]:
    """Read trials that `save` has written."""
    return _LIST.validate_json(path.read_text(encoding="utf-8"))


_STYLE: dict[Stage, tuple[str, str]] = {
    "teacher": ("*", INK),
    "int8": ("s", COLOURS[1]),
    "one-shot": ("o", COLOURS[4]),
    "short recovery": ("^", COLOURS[2]),
    "full recovery": ("D", COLOURS[0]),
}


@styled
def trials_figure(trials: Sequence[Trial], max_loss: float) -> bytes:
    """Plot the trials: difference of nDCG@10 to the teacher on the same queries, over median latency.

    The line is the Pareto front, numbered from the fastest trial on and named in the legend, where the names cover no
    point; the dotted line is the largest loss allowed.

    Returns:
        A PNG image that is the same for the same input.
    """
    figure = Figure(figsize=(8.0, 5.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    best = pareto_front(trials)
    axes.plot([_ms(each) for each in best], [each.difference for each in best], color=INK, linewidth=1.0, zorder=1)
    shown: list[Artist] = []
    for stage, (marker, colour) in _STYLE.items():
        points = [each for each in trials if each.stage == stage and each.p50_ms is not None]
        if points:
            shown.append(
                axes.scatter(
                    [_ms(each) for each in points],
                    [each.difference for each in points],
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
        point = (_ms(each), each.difference)
        axes.annotate(str(number), point, xytext=(-13, 5), textcoords="offset points", fontsize=9, weight="bold")
        names += axes.plot([], [], color=INK, linestyle="none", marker=f"${number}$", label=each.name)
    axes.set_yscale("symlog", linthresh=2 * max_loss)  # before recovery, a model may lose a hundred times as much
    axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=max_loss, subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.12)
    axes.set_xlabel("median time of one query with its candidates, ms (log scale)")
    axes.set_ylabel("nDCG@10 less that of the teacher")
    axes.set_title(f"Trials (losses over {2 * max_loss:g} on a log scale)", loc="left", fontsize=11)
    axes.grid(color=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=shown, loc="outside lower left", frameon=False, fontsize=9)
    figure.legend(handles=names, loc="outside lower right", frameon=False, fontsize=9)
    return png(figure)


def _ms(each: Trial) -> float:
    assert each.p50_ms is not None
    return each.p50_ms
