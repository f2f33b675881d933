"""`hfcompress compress`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from hfcompress.cli import long_documents as long
from hfcompress.cli import options
from hfcompress.cli.tables import print_report
from hfcompress.cli.terminal import start, step_lines, write_json

if TYPE_CHECKING:
    from hfcompress.compress.compress import Outcome

NOT_REACHED = 3


@long.with_long_documents
def compress(
    model: options.CrossEncoder,
    data: options.Data,
    out_folder: options.OutFolder,
    target_speedup: Annotated[
        float | None, typer.Option(help="Speed-up over the model in fp32 PyTorch; as fast as possible by default.")
    ] = None,
    target_latency_ms: Annotated[
        float | None, typer.Option(help="Median milliseconds for one query with all its candidates.")
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option(help="Non-inferiority margin: largest acceptable loss in nDCG@10; 0.01 by default.")
    ] = None,
    keep: Annotated[
        float | None, typer.Option(help="The same as a share of the teacher's nDCG@10 on dev to keep, e.g. 0.99.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="Target runtime: auto, openvino, onnxruntime or torch.")] = "auto",
    vocabulary: Annotated[
        str, typer.Option(help="Tokens to keep: whole, or corpus, those of its documents and train queries.")
    ] = "whole",
    max_size_mb: Annotated[
        float | None,
        typer.Option(help="Largest size of a deployment in MB; the vocabulary is cut to the corpus where needed."),
    ] = None,
    zero_shot: Annotated[
        list[str] | None,
        typer.Option(help="Data set to evaluate the result on, never trained on or chosen by. Repeatable."),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option(help="Bring the scores to the model's scale, so that thresholds on them hold.")
    ] = True,
    time_budget: Annotated[str, typer.Option(help="Time for the whole command, e.g. 60m or 1h30m.")] = "60m",
    max_length: options.MaxLength = None,
    *,
    reading: long.LongDocuments,
    candidates: options.Candidates = 20,
    threads: options.Threads = 0,
    licence: Annotated[
        str, typer.Option("--license", help="Licence of the compressed model; by default that of MODEL's card.")
    ] = "",
    device: options.Device = "auto",
    seed: options.Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an earlier call from its finished steps.")] = False,
    json_file: options.Json = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Compress a cross-encoder as far as its ranking quality allows, within a time budget.

    The output contains the recipe that reproduces the result. The exit code is 0 if the goal was reached, and 3 if no
    model that is fast and small enough was shown to rank as well.

    Example: hfcompress compress path/or/hub-id --data path/to/beir-folder --out out/compressed --target-speedup 4
    """
    from hfcompress.compress.compress import compress as work
    from hfcompress.compress.goal import MAX_LOSS, Goal, check_one_margin, parse_duration

    console = start(json_file)
    check_one_margin(max_loss, keep)
    goal = Goal(
        target_speedup=target_speedup,
        target_latency_ms=target_latency_ms,
        max_loss=MAX_LOSS if max_loss is None else max_loss,
        keep=keep,
        runtime=runtime,  # type: ignore[arg-type]
        vocabulary=vocabulary,  # type: ignore[arg-type]
        max_size_mb=max_size_mb,
        seconds=parse_duration(time_budget),
    )
    with step_lines(console, quiet):
        outcome = work(
            model,
            data,
            out_folder,
            goal,
            max_length=max_length,
            candidates=candidates,
            threads=threads,
            license=licence,
            seed=seed,
            resume=resume,
            progress=not quiet,
            zero_shot=zero_shot or [],
            device=device,
            long_documents=reading,
            calibrate=calibrate,
        )
    write_json(json_file, outcome.to_json())
    console.print(_trials(outcome))
    print_report(outcome.report, console)
    console.print(escape(_in_words(outcome, out_folder)), soft_wrap=True)
    return 0 if outcome.reached else NOT_REACHED


def _trials(outcome: Outcome) -> Table:
    from hfcompress.compress.trials import pareto_front, ranked

    best = {each.name for each in pareto_front(outcome.trials)}
    table = Table(title="Trials, the most useful first (* on the Pareto front)", title_justify="left")
    for name in ("", "nDCG@10", "difference", "speed-up", "p50 ms", "MB", "decision"):
        table.add_column(name, justify="left" if name in ("", "decision") else "right")
    for each in ranked(outcome.trials, outcome.goal.max_loss):
        table.add_row(
            f"{each.name}{' *' if each.name in best else ''}",
            f"{each.ndcg:.4f}",
            f"{each.difference:+.4f}",
            f"{each.speedup:.2f}x" if each.speedup else "",
            f"{each.p50_ms:.1f}" if each.p50_ms else "",
            f"{each.megabytes:.1f}" if each.megabytes else "",
            each.decision,
        )
    return table


def _in_words(outcome: Outcome, folder: Path) -> str:
    chosen, delta, goal = outcome.chosen, outcome.delta, outcome.goal
    found = f"{chosen.speedup:.2f}x, nDCG@10 {delta.mean:+.4f} [{delta.ci_low:+.4f}, {delta.ci_high:+.4f}]"
    where = (
        f"The result is in {folder}, from {folder / 'recipe.yaml'}: hfcompress run {folder / 'recipe.yaml'} --out ..."
    )
    if outcome.reached:
        return (
            f"Reached: {chosen.path} ({found}) is non-inferior to its teacher at a margin of {goal.max_loss:g}. {where}"
        )
    reasons = []
    if not outcome.fast_enough:
        reasons.append("it is slower than the target")
    if not outcome.small_enough:
        reasons.append(f"it takes {chosen.size_bytes / 1e6:.1f} MB, more than {goal.max_size_mb:g}")
    if delta.decision == "inferior":
        reasons.append(f"it loses more than {goal.max_loss:g}")
    if delta.decision == "inconclusive":
        reasons.append(
            f"{len(chosen.per_query)} test queries cannot tell whether it loses more than {goal.max_loss:g} (power "
            f"{delta.power:.0%}; 80% needs about {delta.queries_needed or 0:,})"
        )
    return f"Not reached: {chosen.path} ({found}): {' and '.join(reasons)}. {_would_pass(outcome)}{where}"


def _would_pass(outcome: Outcome) -> str:
    """What can be expected to pass, and where it is or how it is made."""
    from hfcompress.card.opening import chance

    other = outcome.report.would_pass
    if other is None:
        return ""
    folder = outcome.alternative
    made = f"it is in {folder}" if folder else f"--target-speedup {other.speedup:.1f} makes it, in another folder"
    return (
        f"{other.speedup:.1f}x {chance(other)}: {other.name}, with a probability of {other.probability:.0%} by its "
        f"difference on dev ({other.delta.mean:+.4f} [{other.delta.ci_low:+.4f}, {other.delta.ci_high:+.4f}]), not "
        f"tested on test; {made}. "
    )
