"""`hfcompress prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hfcompress.cli.terminal import DATA_HELP, Debug, Json, Quiet, console_for, sayer, write_json
from hfcompress.errors import DataError


def prune(
    model: Annotated[str, typer.Argument(help="A cross-encoder: a folder, a Hub id, or package:NAME/FOLDER.")],
    data: Annotated[list[str], typer.Option("--data", help=DATA_HELP)],
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
    characters: Annotated[
        str, typer.Option(help="Single characters that stay in the vocabulary: all, or those of the corpus.")
    ] = "all",
    weight_sparsity: Annotated[
        float | None, typer.Option(help="Share of the weights left to set to zero, the smallest of each matrix.")
    ] = None,
    weight_pattern: Annotated[
        str | None, typer.Option(help="unstructured, or 2:4: two of every four neighbours, a sparsity of 0.5.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(min=8, help="Longest input in tokens.")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Documents to rank for a query.")] = 20,
    calibration_queries: Annotated[int, typer.Option(min=2, help="Train queries to look at, 8 documents each.")] = 64,
    search_steps: Annotated[int, typer.Option(min=1, help="Plans that the local search tries for each target.")] = 12,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the runtime; 0 uses all cores.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    measure: Annotated[bool, typer.Option(help="Export every model and time it against the unpruned one.")] = True,
    json_file: Json = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Prune without training: importance, search over measured time, surgery. Several targets give a family.

    Example: hfcompress prune out/quickstart/.hfcompress/teacher --data api-search --target-speedup 2 --out out/pruned
    """
    from hfcompress.oneshot import family_json, prune_checkpoint
    from hfcompress.quantization.openvino import is_available
    from hfcompress.quiet import silence_libraries
    from hfcompress.recipe import PruneStep

    silence_libraries()
    console = console_for(json_file)
    if vocabulary not in (None, "corpus"):
        raise DataError(
            "There is no such vocabulary", value=vocabulary, expected="corpus", remedy="correct --vocabulary"
        )
    if not vocabulary and (min_count != 1 or characters != "all"):
        raise DataError(
            "--min-count and --characters are about the vocabulary, which is kept whole",
            value=f"--min-count {min_count} --characters {characters}",
            expected="both only with --vocabulary corpus",
            remedy="add --vocabulary corpus, or leave them out",
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
        settings["vocabulary"] = {"min_count": min_count, "characters": characters}
    zeros = {"sparsity": weight_sparsity, "pattern": weight_pattern}
    if given := {name: value for name, value in zeros.items() if value is not None}:
        settings["weights"] = given
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
        sayer(console, quiet),
        progress=not quiet,
    )
    write_json(json_file, family_json(members))
    table = Table(title=f"{model} on {settings['runtime']}", title_justify="left")
    for name in ("target", "folder", "predicted", "measured", "flops", "size", "loss"):
        table.add_column(name, justify="left" if name in ("target", "folder") else "right", no_wrap=True)
    for member in members:
        table.add_row(
            member.target,
            member.folder,
            *(f"{value:.2f}x" if value else "" for value in (member.predicted_speedup, member.measured_speedup)),
            f"{member.encoder_flops_kept:.0%}",
            f"{member.parameters / 1e6:.1f} M",
            f"{member.calibration_loss:.3g}",
        )
    console.print(table)
    console.print(
        "predicted, measured: speed-up. flops: share of the encoder's multiply-adds that is left. size: parameters. "
        "loss: divergence of the ranking from the unpruned model's on held-out train queries. "
        f"Next: hfcompress evaluate {out_folder / members[0].folder} --baseline {model} --data {data[0]}",
        soft_wrap=True,
    )
