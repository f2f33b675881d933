"""Draw the figures of the documentation into docs/figures: python scripts/figures_for_docs.py

Every figure is computed with the package's code. Figures of concepts use synthetic data with fixed seeds; figures of
results use a kept report. All are readable on light and dark pages: those drawn here have a white background, those of
the package a transparent one.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch.nn.functional import gelu
from transformers import AutoConfig, AutoModelForSequenceClassification

from hfcompress.card.figures import pareto, structure
from hfcompress.evaluation.significance import compare
from hfcompress.losses import listwise_kl, margin_mse
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import pruned_copy
from hfcompress.pruning.importance.least_squares import damped, removal_order, solve
from hfcompress.pruning.search.dynamic import choose_levels
from hfcompress.pruning.search.levels import ffn_widths
from hfcompress.quantization.rounding import rounded_input, rounded_weight
from hfcompress.report.report import RunReport

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "figures"
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY = {"facecolor": "#E3E3E3", "edgecolor": "#9A9A9A", "hatch": "////", "linewidth": 0.0}
VERDICTS = {"non-inferior": GREEN, "inconclusive": "#7A7A7A", "inferior": ORANGE}


def cut() -> bytes:
    """The matrices of one layer before and after surgery, to scale."""
    heads_of, size, ffn_of, heads, ffn = 6, 8, 96, (0, 2, 5), (*range(4, 12), *range(30, 42), *range(70, 82))
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "bert", vocab_size=8, hidden_size=heads_of * size, num_hidden_layers=1, num_attention_heads=heads_of,
        intermediate_size=ffn_of, num_labels=1,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config)
    pruned = pruned_copy(model, PruningPlan(1, heads_of, ffn_of, (LayerPlan(0, heads, ffn),)))
    rows = [head * size + offset for head in heads for offset in range(size)]
    parts = {
        "W_Q": ("attention.self.query", rows, None),
        "W_K": ("attention.self.key", rows, None),
        "W_V": ("attention.self.value", rows, None),
        "W_O": ("attention.output.dense", None, rows),
        "W_1": ("intermediate.dense", list(ffn), None),
        "W_2": ("output.dense", None, list(ffn)),
    }
    figure = _figure(9.0, 4.6)
    axes = figure.add_subplot()
    x = 0
    for name, (path, kept_rows, kept_columns) in parts.items():
        before, after = (tuple(each.bert.encoder.layer[0].get_submodule(path).weight.shape) for each in (model, pruned))
        _matrix(axes, x, 0, before, kept_rows, kept_columns)
        axes.text(x, -6, f"${name}$\n{before[0]} × {before[1]}", va="bottom", fontsize=9)
        axes.add_patch(Rectangle((x, 120), after[1], after[0], facecolor=BLUE, edgecolor="none"))
        axes.text(x, 114, f"{after[0]} × {after[1]}", va="bottom", fontsize=9)
        x += before[1] + 12
    axes.text(-8, 48, "before", rotation=90, ha="center", va="center", fontsize=10)
    axes.text(-8, 144, "after", rotation=90, ha="center", va="center", fontsize=10)
    axes.set_xlim(-14, x)
    axes.set_ylim(172, -24)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title("One layer loses 3 of 6 heads and 64 of 96 FFN neurons (hatched)", loc="left", fontsize=11)
    return _svg(figure)


def least_squares() -> bytes:
    """Output error by share of pruned inputs: by size, by importance, and with a least-squares weight update."""
    torch.manual_seed(0)
    columns, outputs, factors, tokens = 96, 48, 40, 4000
    hidden = torch.randn(tokens, factors, dtype=torch.float64) @ torch.randn(factors, columns, dtype=torch.float64)
    inputs = gelu(hidden / factors**0.5)
    weight = torch.randn(outputs, columns, dtype=torch.float64)
    hessian = damped(2 / tokens * inputs.T @ inputs, 1e-3, columns)
    by_size = torch.argsort(weight.square().sum(0))
    order = removal_order(weight, hessian, 1, columns).order

    def error(kept: torch.Tensor, updated: bool) -> float:
        change = weight.clone()
        change[:, kept] -= solve(weight, hessian, kept) if updated else weight[:, kept]
        return float((change @ hessian * change).sum() / (weight @ hessian * weight).sum())

    figure = _figure(7.0, 4.0)
    axes = figure.add_subplot()
    counts = range(0, columns, 4)
    for order_, updated, label, colour, style in (
        (by_size, False, "smallest weights pruned, no update", ORANGE, "--"),
        (order, False, "least important inputs pruned, no update", PINK, ":"),
        (order, True, "least important inputs pruned, weights updated (obs)", BLUE, "-"),
    ):
        errors = [error(order_[count:].sort().values, updated) for count in counts]
        axes.plot([count / columns for count in counts], errors, style, color=colour, label=label, linewidth=2)
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("share of pruned inputs")
    axes.set_ylabel("relative error of the output")
    axes.legend(frameon=False, fontsize=9)
    _plain(axes)
    return _svg(figure)


def search() -> bytes:
    """Loss and time of cuts in four sublayers, and the levels that the search selects for half of the time."""
    names = ("attention 0", "FFN 0", "attention 1", "FFN 1")
    full, cost_of_one, steepness = (12, 1536, 12, 1536), (1.0, 0.01, 1.0, 0.01), (0.9, 0.15, 0.35, 0.3)
    sizes = [np.arange(13), ffn_widths(1536, 32), np.arange(13), ffn_widths(1536, 32)]
    costs = [one * size for one, size in zip(cost_of_one, sizes, strict=True)]
    losses = [
        scale * ((1 - size / most) ** 2 + 0.02 * (1 - size / most))
        for scale, size, most in zip(steepness, sizes, full, strict=True)
    ]
    budget = sum(float(cost.max()) for cost in costs) / 2
    found = choose_levels(losses, costs, budget)
    assert found is not None
    figure = _figure(9.0, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
    for index, (name, colour) in enumerate(zip(names, (BLUE, ORANGE, GREEN, PINK), strict=True)):
        level = found[0][index]
        left.plot(costs[index], losses[index], color=colour, label=name)
        left.plot(costs[index][level], losses[index][level], "o", color=colour, markersize=8)
        share = sizes[index][level] / full[index]
        right.barh(index, 1.0, height=0.7, color="#EDEDED")
        right.barh(index, share, height=0.7, color=colour)
        right.text(1.03, index, f"{sizes[index][level]} of {full[index]}", va="center", fontsize=9)
    left.set_xlabel("time of the sublayer (dots: selected)")
    left.set_ylabel("ranking loss of this cut alone")
    left.legend(frameon=False, fontsize=9)
    right.set_yticks(range(4), names)
    right.set_xlim(0, 1.45)
    right.set_ylim(3.5, -0.5)
    right.set_xticks([0, 0.5, 1.0], ["0", "50%", "100%"])
    right.set_title("kept at half of the time", loc="left", fontsize=10)
    for axes in (left, right):
        _plain(axes)
    return _svg(figure)


def distillation() -> bytes:
    """Three students of one teacher, and two losses of each."""
    teacher = torch.tensor([[5.0, 3.4, 2.8, 1.5, 0.9, 0.2, -0.6, -1.4]])
    swapped = teacher[:, [0, 2, 1, 5, 4, 3, 6, 7]]
    students = {"all scores 2 lower": teacher - 2, "margins halved": teacher / 2, "two pairs swapped": swapped}
    mask = torch.ones_like(teacher, dtype=torch.bool)
    figure = _figure(9.0, 3.6)
    for axes, (name, scores) in zip(figure.subplots(1, 3, sharey=True), students.items(), strict=True):
        ranks = range(1, teacher.shape[1] + 1)
        axes.plot(ranks, teacher[0], "o-", color="black", label="teacher", markersize=5)
        axes.plot(ranks, scores[0], "s--", color=BLUE, label="student", markersize=5)
        values = {loss.__name__: float(loss(scores, teacher, mask)) for loss in (margin_mse, listwise_kl)}
        text = "\n".join(f"{loss}  {value + 0.0:.2f}" for loss, value in values.items())
        axes.text(0.98, 0.97, text, transform=axes.transAxes, ha="right", va="top", fontsize=9, family="monospace")
        axes.set_title(name, loc="left", fontsize=10)
        axes.set_xlabel("rank of the document by the teacher")
        axes.set_ylim(-4, 7.5)
        _plain(axes)
    figure.axes[0].set_ylabel("score")
    figure.axes[0].legend(frameon=False, fontsize=9, loc="lower left")
    return _svg(figure)


def int8() -> bytes:
    """Weights and activations before and after rounding, with one or several scales, with and without an outlier."""
    torch.manual_seed(0)
    weight = torch.randn(8, 64) * torch.tensor([0.02, 0.03, 0.04, 0.05, 0.08, 0.1, 0.3, 2.0])[:, None]
    row = weight[0].sort().values
    figure = _figure(9.0, 3.6)
    left, right = figure.subplots(1, 2)
    left.plot(row, row, color="black", linewidth=1, label="fp32")
    for per_channel, colour, marker, label in (
        (False, ORANGE, "x", "one scale for the matrix"),
        (True, BLUE, ".", "one scale per output"),
    ):
        rounded = rounded_weight(weight, per_channel)[0].sort().values
        left.plot(row, rounded, marker, color=colour, label=label)
    left.set_xlabel("weight of a small row")
    left.set_ylabel("the same in int8")
    values = torch.cat([torch.linspace(-1, 1, 201), torch.tensor([60.0])])
    right.plot(values[:-1], values[:-1], color="black", linewidth=1, label="fp32")
    right.plot(values[:-1], rounded_input(values)[:-1], color=ORANGE, label="range with an outlier at 60")
    right.plot(values[:-1], rounded_input(values, (-1.0, 1.0))[:-1], color=BLUE, label="outlier cut off")
    right.set_xlabel("activation")
    right.set_ylabel("the same in int8")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=9)
        _plain(axes)
    return _svg(figure)


def verdict() -> bytes:
    """Intervals of simulated students, with the spread of the quickstart's report, against the margin."""
    report = _report()
    baseline, artifact = report.teacher.per_query, report.artifacts[0].per_query
    spread = np.array([artifact[query] - baseline[query] for query in sorted(baseline)])
    spread -= spread.mean()
    cases = ((220, 0.0), (2_000, 0.0), (2_000, -0.005), (2_000, -0.03), (220, 0.02))
    figure = _figure(9.0, 3.6)
    axes = figure.add_subplot()
    margin = 0.01
    axes.axvspan(-margin, 0.05, color=GREEN, alpha=0.08)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvline(-margin, color="black", linestyle=":", linewidth=1.2)
    labels = []
    for index, (count, difference) in enumerate(cases):
        drawn = np.random.default_rng(index).choice(spread, count)
        drawn += difference - drawn.mean()  # each sample has exactly the stated mean, so only the width differs
        teacher = {str(number): 0.0 for number in range(count)}
        student = {str(number): float(value) for number, value in enumerate(drawn)}
        delta = compare(teacher, student, margin, resamples=2_000)
        colour = VERDICTS[delta.verdict]
        axes.plot([delta.ci_low, delta.ci_high], [index, index], color=colour, linewidth=3)
        axes.plot(delta.mean, index, "o", color=colour, markersize=8)
        axes.text(0.052, index, delta.verdict, va="center", color=colour, fontsize=10)
        labels.append(f"{count:,} queries, difference {difference:+.3f}")
    axes.set_yticks(range(len(cases)), labels)
    axes.set_ylim(len(cases) - 0.5, -0.9)
    axes.set_xlim(-0.05, 0.05)
    axes.text(-margin - 0.0005, -0.8, "margin", ha="right", va="top", fontsize=9)
    axes.set_xlabel("difference in nDCG@10: student minus teacher, with 95% interval")
    _plain(axes)
    axes.tick_params(axis="y", left=False)
    return _svg(figure)


def quickstart_pareto() -> bytes:
    """The quickstart's quality against speed."""
    return pareto(_report())


def quickstart_structure() -> bytes:
    """The pruned structure of the quickstart."""
    pruning = _report().pruning
    assert pruning is not None
    return structure(pruning)


FIGURES: dict[str, Callable[[], bytes]] = {
    "cut.svg": cut,
    "least-squares.svg": least_squares,
    "search.svg": search,
    "distillation.svg": distillation,
    "int8.svg": int8,
    "verdict.svg": verdict,
    "quickstart-pareto.png": quickstart_pareto,
    "quickstart-structure.png": quickstart_structure,
}


def _report() -> RunReport:
    return RunReport.load(ROOT / "model_cards" / "quickstart")


def _matrix(
    axes: Axes, x: float, y: float, shape: tuple[int, ...], rows: list[int] | None, columns: list[int] | None
) -> None:
    """A matrix with the pruned part hatched and the remaining part in blue."""
    axes.add_patch(Rectangle((x, y), shape[1], shape[0], **GREY))  # type: ignore[arg-type]
    for row in rows or []:
        axes.add_patch(Rectangle((x, y + row), shape[1], 1, facecolor=BLUE, edgecolor="none"))
    for column in columns or []:
        axes.add_patch(Rectangle((x + column, y), 1, shape[0], facecolor=BLUE, edgecolor="none"))


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), facecolor="white", layout="constrained")


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _svg(figure: Figure) -> bytes:
    """Render a deterministic SVG image."""
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "hfcompress"}):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        (FOLDER / name).write_bytes(draw())
