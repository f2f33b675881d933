"""The `hfcompress` command. Each verb loads what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hfcompress.errors import DataError, HfCompressError

if TYPE_CHECKING:
    from hfcompress.evaluation.report import Artifact, RunReport

app = typer.Typer(
    name="hfcompress",
    help="Make Hugging Face rerankers faster and smaller, and prove that they still rank as well.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False)
out.width = max(out.width, 132)  # a table that is folded into 80 columns cannot be read; the terminal wraps its lines
err = Console(stderr=True, highlight=False)

INTERRUPTED = 130

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars and no lines about steps.")]


def main(arguments: list[str] | None = None, program: str | None = None) -> None:
    """Run the command line; ends with 0, with 2 for an error that the user can mend, with 130 when interrupted.

    Args:
        arguments: What was typed behind the name of the program; by default the arguments of this process.
        program: Name of the program in help and messages.
    """
    code = 0
    try:
        code = app(arguments, prog_name=program, standalone_mode=False) or 0
    except HfCompressError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):  # not one of click's usage errors
            raise
        if message := error.format_message():  # empty where the help was shown for want of arguments
            err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
        sys.exit(2)
    if code == INTERRUPTED:
        err.print("interrupted: a run goes on from its last finished step with the same command and --resume")
    if code:
        sys.exit(code)


@app.command("run")
def run_command(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to write; new, empty, or of an earlier run.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Replace a setting, e.g. prune.heads=0.25. Repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep finished steps of an earlier run.")] = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune, prune, recover, quantize, evaluate, and write the card: everything that a recipe says.

    Example: hfcompress run configs/quickstart.yaml --out out/quickstart
    """
    from hfcompress.pipeline import run
    from hfcompress.quiet import silence_libraries
    from hfcompress.recipe import Recipe

    silence_libraries()
    loaded = Recipe.load(recipe, settings)
    say = (lambda line: None) if quiet else (lambda line: out.print(escape(line), soft_wrap=True))
    report = run(loaded, out_folder, resume, progress=not quiet, say=say)
    _print_report(report)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Folder of a run, or any cross-encoder: a folder or a Hub id.")],
    data: Annotated[list[str], typer.Option("--data", help="api-search or a folder in BEIR's layout. Repeatable.")],
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "test",
    baseline: Annotated[str | None, typer.Option(help="Model to compare with, query by query.")] = None,
    runtime: Annotated[str | None, typer.Option(help="torch, onnxruntime or openvino; the fastest by default.")] = None,
    max_length: Annotated[int | None, typer.Option(min=8, help="Longest input in tokens.")] = None,
    max_queries: Annotated[
        int | None, typer.Option(min=1, help="At most so many queries, by hash of their id.")
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Documents to rank for a query.")] = 20,
    margin: Annotated[float, typer.Option(help="Largest loss in nDCG@10 that counts as ranking as well.")] = 0.01,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    quiet: Quiet = False,
) -> None:
    """Measure how well and how fast a model ranks, alone or against a baseline on the same candidates.

    Example: hfcompress evaluate out/quickstart --data api-search --baseline out/quickstart/.hfcompress/teacher
    """
    from hfcompress.evaluation.standalone import evaluate_models
    from hfcompress.files import write_text
    from hfcompress.quiet import silence_libraries

    silence_libraries()
    if split not in ("train", "dev", "test"):
        raise DataError("There is no such split", value=split, expected="train, dev or test", remedy="correct --split")
    if runtime not in (None, "torch", "onnxruntime", "openvino"):
        raise DataError(
            "There is no such runtime",
            value=runtime,
            expected="torch, onnxruntime or openvino",
            remedy="correct --runtime, or leave it out",
        )
    if margin <= 0:
        raise DataError("The margin does not fit", value=margin, expected="a margin above 0", remedy="correct --margin")
    result = evaluate_models(
        model, baseline, data, split, runtime, max_length, max_queries, candidates, margin, progress=not quiet
    )
    if json_file:
        write_text(json_file, result.model_dump_json(indent=2) + "\n")
    table = _table(f"{result.data} {split}, {len(result.artifacts[0].per_query)} queries")
    table.add_row(result.first_stage.name, *_quality(result.first_stage.quality), *[""] * 5)
    for artifact in result.artifacts:
        _add_row(table, artifact)
    out.print(table)


@app.command()
def prune(
    model: Annotated[str, typer.Argument(help="A cross-encoder: a folder, a Hub id, or package:NAME/FOLDER.")],
    data: Annotated[list[str], typer.Option("--data", help="api-search or a folder in BEIR's layout. Repeatable.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to write; new, empty, or of an earlier prune.")],
    target_speedup: Annotated[
        list[float] | None, typer.Option(help="Times faster than the unpruned model, same runtime. Repeatable.")
    ] = None,
    target_latency_ms: Annotated[
        list[float] | None, typer.Option(help="Milliseconds for a query with all its candidates. Repeatable.")
    ] = None,
    target_parameters: Annotated[
        list[float] | None, typer.Option(help="Share of the parameters to keep. Repeatable.")
    ] = None,
    target_flops: Annotated[
        list[float] | None, typer.Option(help="Share of the encoder's multiply-adds to keep. Repeatable.")
    ] = None,
    heads: Annotated[float | None, typer.Option(help="Share of the heads to keep, without a search.")] = None,
    ffn: Annotated[float | None, typer.Option(help="Share of the FFN neurons to keep, without a search.")] = None,
    structure: Annotated[str, typer.Option(help="free, or stock: whole layers and one FFN width.")] = "free",
    importance: Annotated[str, typer.Option(help="obs, fisher or magnitude.")] = "obs",
    runtime: Annotated[str, typer.Option(help="auto, torch, onnxruntime or openvino: where time counts.")] = "auto",
    vocabulary: Annotated[str | None, typer.Option(help="corpus: keep the tokens that the data needs.")] = None,
    min_count: Annotated[int, typer.Option(min=1, help="How often a token must occur to stay.")] = 1,
    max_length: Annotated[int | None, typer.Option(min=8, help="Longest input in tokens.")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Documents to rank for a query.")] = 20,
    calibration_queries: Annotated[int, typer.Option(min=2, help="Train queries to look at, 8 documents each.")] = 64,
    search_steps: Annotated[int, typer.Option(min=1, help="Plans that the local search tries for each target.")] = 16,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the runtime; 0 uses all cores.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    measure: Annotated[bool, typer.Option(help="Export every model and time it against the unpruned one.")] = True,
    quiet: Quiet = False,
) -> None:
    """Prune without training: importance, search over measured time, surgery. Several targets give a family.

    Example: hfcompress prune out/quickstart/.hfcompress/teacher --data api-search --target-speedup 2 --out out/pruned
    """
    from hfcompress.oneshot import prune_checkpoint
    from hfcompress.quantization.openvino import is_available
    from hfcompress.quiet import silence_libraries
    from hfcompress.recipe import PruneStep

    silence_libraries()
    if vocabulary not in (None, "corpus"):
        raise DataError(
            "There is no such vocabulary", value=vocabulary, expected="corpus", remedy="correct --vocabulary"
        )
    asked = {
        "target_speedup": target_speedup,
        "target_latency_ms": target_latency_ms,
        "target_parameters": target_parameters,
        "target_flops": target_flops,
    }
    targets = [(name, value) for name, values in asked.items() for value in values or []]
    settings: dict[str, object] = {name: values[0] for name, values in asked.items() if values}
    settings |= {"heads": heads, "ffn": ffn, "structure": structure, "importance": importance}
    settings |= {"calibration_queries": calibration_queries, "search_steps": search_steps}
    settings["runtime"] = runtime if runtime != "auto" else "openvino" if is_available() else "onnxruntime"
    if heads is not None or ffn is not None:
        settings["spread"] = "uniform" if structure == "stock" else "global"
    if vocabulary:
        settings["vocabulary"] = {"min_count": min_count}
    members = prune_checkpoint(
        model,
        data,
        out_folder,
        PruneStep.of(settings),
        targets,
        max_length,
        candidates,
        threads,
        seed,
        measure,
        (lambda line: None) if quiet else (lambda line: out.print(escape(line), soft_wrap=True)),
        progress=not quiet,
    )
    table = Table(title=f"{model} on {settings['runtime']}", title_justify="left")
    for name in (
        "target",
        "folder",
        "predicted speed-up",
        "measured",
        "multiply-adds",
        "parameters",
        "calibration loss",
    ):
        table.add_column(name, justify="left" if name in ("target", "folder") else "right")
    for member in members:
        table.add_row(
            member.target,
            member.folder,
            *(f"{value:.2f}x" if value else "" for value in (member.predicted_speedup, member.measured_speedup)),
            f"{member.encoder_flops_kept:.0%}",
            f"{member.parameters / 1e6:.1f} M",
            f"{member.calibration_loss:.3g}",
        )
    out.print(table)
    out.print(
        "The calibration loss is the divergence of the ranking from the unpruned model's on held-out train queries. "
        f"Next: hfcompress evaluate {out_folder / members[0].folder} --baseline {model} --data {data[0]}",
        soft_wrap=True,
    )


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or any model that hfcompress opens.")],
    png: Annotated[
        Path | None, typer.Option(help="Where to draw the plan; figures/structure.png in the folder by default.")
    ] = None,
) -> None:
    """Show what was pruned, as a table and as a heat map, and what was measured.

    Example: hfcompress inspect out/quickstart
    """
    from hfcompress.evaluation.report import REPORT_FILE, RunReport
    from hfcompress.evaluation.results import read_pruning
    from hfcompress.figures import structure
    from hfcompress.files import write_bytes
    from hfcompress.layout import STRUCTURE_FILE
    from hfcompress.models import load_config
    from hfcompress.quiet import silence_libraries
    from hfcompress.surgery import plan_of_config

    silence_libraries()
    config = load_config(str(folder))
    plan = plan_of_config(config)
    table = Table(title=f"{config.model_type}, {len(plan.layers)} of {plan.layers_of} layers", title_justify="left")
    for name in ("layer", "heads", "kept heads", "FFN"):
        table.add_column(name)
    for layer in plan.layers:
        heads = ", ".join(map(str, layer.heads)) or "none"
        table.add_row(str(layer.layer), f"{len(layer.heads)}/{plan.heads_of}", heads, f"{len(layer.ffn)}/{plan.ffn_of}")
    out.print(table)
    report = RunReport.load(folder) if (folder / REPORT_FILE).is_file() else None
    pruning = read_pruning(folder, config, report)
    if png or folder.is_dir():
        drawn = write_bytes(png or folder / STRUCTURE_FILE, structure(pruning))
        out.print(f"heat map: {drawn}", soft_wrap=True)
    if report:
        _print_report(report)


@app.command()
def rank(
    folder: Annotated[str, typer.Argument(help="Folder of a run, or any cross-encoder.")],
    query: Annotated[str, typer.Option(help="The query.")],
    docs: Annotated[Path, typer.Option(help="Text file with one document a line.")],
    top_k: Annotated[int | None, typer.Option(help="Show only the best.")] = None,
    runtime: Annotated[str | None, typer.Option(help="torch, onnxruntime or openvino; the fastest by default.")] = None,
) -> None:
    """Rank the documents of a file for a query; prints score, line number and document.

    Example: hfcompress rank out/quickstart --query "sort a list" --docs documents.txt
    """
    from hfcompress.quiet import silence_libraries
    from hfcompress.rankers.load import load_ranker

    silence_libraries()
    if not query.strip():
        raise DataError("The query is empty", value=query, expected="some text", remedy="give --query a text")
    if not docs.exists() or docs.is_dir():
        raise DataError("There is no such file", value=str(docs), expected="a text file", remedy="correct --docs")
    try:
        documents = docs.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{docs} is not text", value=str(error), expected="a text file in UTF-8", remedy="save it as UTF-8"
        ) from error
    empty = [number for number, line in enumerate(documents, 1) if not line.strip()]
    if empty or not documents:
        raise DataError(
            f"{docs} has no documents, or empty ones",
            value=f"empty lines {empty[:5]}",
            expected="one document on every line",
            remedy="remove the empty lines",
        )
    for hit in load_ranker(folder, runtime).rank(query, documents, top_k):  # type: ignore[arg-type]
        typer.echo(f"{hit.score:.4f}\t{hit.position + 1}\t{documents[hit.position]}")


@app.command()
def card(folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")]) -> None:
    """Write README.md and its figures again from report.json.

    Example: hfcompress card out/quickstart
    """
    from hfcompress.card import write_card
    from hfcompress.evaluation.report import RunReport

    for path in write_card(folder, RunReport.load(folder)):
        typer.echo(str(path))


def _print_report(report: RunReport) -> None:
    table = _table(f"{report.name}: {len(report.teacher.per_query)} test queries of {report.data.name}")
    table.add_row(report.first_stage.name, *_quality(report.first_stage.quality), *[""] * 5)
    for artifact in (report.teacher, *report.artifacts):
        _add_row(table, artifact)
    out.print(table)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("", "nDCG@10", "MRR@10", "difference", "verdict", "docs/s", "speed-up", "MB"):
        table.add_column(name, justify="left" if name in ("", "verdict") else "right", no_wrap=True)
    return table


def _add_row(table: Table, artifact: Artifact) -> None:
    delta = artifact.delta
    table.add_row(
        artifact.name,
        *_quality(artifact.quality),
        f"{delta.mean:+.4f} [{delta.ci_low:+.4f}, {delta.ci_high:+.4f}]" if delta else "",
        delta.verdict if delta else "",
        f"{artifact.latency.docs_per_second:.0f}",
        f"{artifact.speedup:.2f}x",
        f"{artifact.size_bytes / 1e6:.1f}",
    )


def _quality(quality: dict[str, float]) -> list[str]:
    return [f"{quality[name]:.4f}" for name in ("ndcg@10", "mrr@10")]


if __name__ == "__main__":
    main()
