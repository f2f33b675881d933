"""`hfcompress compress`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from hfcompress.cli.tables import print_report
from hfcompress.cli.terminal import DATA_HELP, Debug, Json, Quiet, console_for, sayer, write_json

if TYPE_CHECKING:
    from hfcompress.compress.compress import Outcome

NOT_REACHED = 3


def compress(
    model: Annotated[str, typer.Argument(help="A cross-encoder: a folder, a Hub id, or package:NAME/FOLDER.")],
    data: Annotated[list[str], typer.Option("--data", help=DATA_HELP)],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to write; new, empty, or of an earlier run.")],
    target_speedup: Annotated[
        float | None, typer.Option(help="Times faster than the model in fp32 PyTorch; as fast as possible by default.")
    ] = None,
    target_latency_ms: Annotated[
        float | None, typer.Option(help="Milliseconds for a query with all its candidates, at the median.")
    ] = None,
    max_loss: Annotated[float, typer.Option(help="Largest loss in nDCG@10 that counts as ranking as well.")] = 0.01,
    runtime: Annotated[str, typer.Option(help="auto, openvino, onnxruntime or torch: where it will run.")] = "auto",
    time_budget: Annotated[str, typer.Option(help="Time for everything, e.g. 60m or 1h30m.")] = "60m",
    max_length: Annotated[int | None, typer.Option(min=8, help="Longest input in tokens.")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Documents to rank for a query.")] = 20,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the runtime; 0 uses all cores.")] = 0,
    licence: Annotated[
        str, typer.Option("--license", help="Licence of the compressed model; by default that of MODEL's card.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what an earlier call began.")] = False,
    json_file: Json = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Compress a cross-encoder as far as its ranking allows, within a time; the recipe that did it is written too.

    Ends with 0 if the goal was reached, with 3 if nothing that is fast enough was shown to rank as well.

    Example: hfcompress compress path/or/hub-id --data path/to/beir-folder --out out/compressed --target-speedup 4
    """
    from hfcompress.compress.compress import compress as work
    from hfcompress.compress.goal import Goal, parse_duration
    from hfcompress.quiet import silence_libraries

    silence_libraries()
    console = console_for(json_file)
    goal = Goal(target_speedup, target_latency_ms, max_loss, runtime, parse_duration(time_budget))  # type: ignore[arg-type]
    outcome = work(
        model,
        data,
        out_folder,
        goal,
        max_length,
        candidates,
        threads,
        licence,
        seed,
        resume,
        sayer(console, quiet),
        progress=not quiet,
    )
    write_json(json_file, outcome.to_json())
    console.print(_tried(outcome))
    print_report(outcome.report, console)
    console.print(escape(_in_words(outcome, out_folder)), soft_wrap=True)
    return 0 if outcome.reached else NOT_REACHED


def _tried(outcome: Outcome) -> Table:
    from hfcompress.compress.tried import front, ranked

    best = {each.name for each in front(outcome.tried)}
    table = Table(title="What was tried, the most useful first (* on the front)", title_justify="left")
    for name in ("", "nDCG@10", "loss", "speed-up", "p50 ms", "MB", "what follows"):
        table.add_column(name, justify="left" if name in ("", "what follows") else "right")
    for each in ranked(outcome.tried, outcome.goal.max_loss):
        table.add_row(
            f"{each.name}{' *' if each.name in best else ''}",
            f"{each.ndcg:.4f}",
            f"{each.loss:+.4f}",
            f"{each.speedup:.2f}x" if each.speedup else "",
            f"{each.p50_ms:.1f}" if each.p50_ms else "",
            f"{each.megabytes:.1f}" if each.megabytes else "",
            each.decision,
        )
    return table


def _in_words(outcome: Outcome, folder: Path) -> str:
    chosen, delta, goal = outcome.chosen, outcome.delta, outcome.goal
    found = f"{chosen.speedup:.2f}x, nDCG@10 {delta.mean:+.4f} [{delta.ci_low:+.4f}, {delta.ci_high:+.4f}]"
    where = f"It is in {folder}, made by {folder / 'recipe.yaml'}: hfcompress run {folder / 'recipe.yaml'} --out ..."
    if outcome.reached:
        return (
            f"Reached: {chosen.path} ({found}) is non-inferior to its teacher at a margin of {goal.max_loss:g}. {where}"
        )
    reasons = []
    if not outcome.fast_enough:
        reasons.append("it is slower than asked for")
    if delta.decision == "inferior":
        reasons.append(f"it loses more than {goal.max_loss:g}")
    if delta.decision == "inconclusive":
        reasons.append(
            f"{len(chosen.per_query)} test queries do not tell whether it loses more than {goal.max_loss:g} (power "
            f"{delta.power:.0%}; 80% takes some {delta.queries_needed or 0:,})"
        )
    return f"Not reached: {chosen.path} ({found}): {' and '.join(reasons)}. {where}"
