"""`hfcompress prune`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from hfcompress.cli import options
from hfcompress.cli.terminal import err, start, step_lines, write_json
from hfcompress.errors import DataError


def prune(
    model: options.CrossEncoder,
    data: options.Data,
    out_folder: options.OutFolder,
    target_speedup: Annotated[
        list[float] | None, typer.Option(help="Speed-up over the unpruned model on the same runtime. Repeatable.")
    ] = None,
    target_latency_ms: Annotated[
        list[float] | None, typer.Option(help="Milliseconds for one query with all its candidates. Repeatable.")
    ] = None,
    target_parameters: Annotated[
        list[float] | None, typer.Option(help="Share of the parameters to keep. Repeatable.")
    ] = None,
    target_macs: Annotated[
        list[float] | None, typer.Option(help="Share of the encoder's MACs to keep. Repeatable.")
    ] = None,
    target_flops: Annotated[
        list[float] | None, typer.Option(help="Deprecated name of --target-macs.", hidden=True)
    ] = None,
    heads: Annotated[float | None, typer.Option(help="Share of the heads to keep, without a search.")] = None,
    ffn: Annotated[float | None, typer.Option(help="Share of the FFN neurons to keep, without a search.")] = None,
    structure: Annotated[str, typer.Option(help="free, or stock (whole layers and one FFN width).")] = "free",
    importance: Annotated[str, typer.Option(help="obs, fisher or magnitude.")] = "obs",
    runtime: Annotated[
        str, typer.Option(help="Where time is measured: auto, torch, onnxruntime or openvino.")
    ] = "auto",
    vocabulary: Annotated[str | None, typer.Option(help="corpus: keep only the tokens that occur in the data.")] = None,
    min_count: Annotated[int, typer.Option(min=1, help="How often a token must occur to be kept.")] = 1,
    characters: Annotated[
        str, typer.Option(help="Single characters to keep in the vocabulary: all, or those of the corpus.")
    ] = "all",
    weight_sparsity: Annotated[
        float | None, typer.Option(help="Share of the remaining weights to set to zero, the smallest of each matrix.")
    ] = None,
    weight_pattern: Annotated[
        str | None, typer.Option(help="unstructured, or 2:4 (two of every four neighbours, a sparsity of 0.5).")
    ] = None,
    max_length: options.MaxLength = None,
    candidates: options.Candidates = 20,
    calibration_queries: Annotated[
        int, typer.Option(min=2, help="Train queries to calibrate on, 8 documents each.")
    ] = 64,
    search_steps: Annotated[int, typer.Option(min=1, help="Plans that the local search evaluates per target.")] = 12,
    threads: options.Threads = 0,
    device: options.Device = "auto",
    dtype: Annotated[
        str, typer.Option(help="Precision in which --runtime torch is timed: float32, float16 or bfloat16.")
    ] = "float32",
    seed: options.Seed = 0,
    measure: Annotated[bool, typer.Option(help="Export every model and measure its speed-up.")] = True,
    json_file: options.Json = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Prune a model without training. Several targets give a family of models from one search.

    Example: hfcompress prune out/quickstart/.hfcompress/teacher --data api-search --target-speedup 2 --out out/pruned
    """
    from hfcompress.pruning.prune import family_json, prune_checkpoint
    from hfcompress.quantization.openvino import is_available
    from hfcompress.recipe import PruneStep

    console = start(json_file)
    if vocabulary not in (None, "corpus"):
        raise DataError(
            "There is no such vocabulary", value=vocabulary, expected="corpus", remedy="correct --vocabulary"
        )
    if not vocabulary and (min_count != 1 or characters != "all"):
        raise DataError(
            "--min-count and --characters have no effect without --vocabulary",
            value=f"--min-count {min_count} --characters {characters}",
            expected="both only with --vocabulary corpus",
            remedy="add --vocabulary corpus, or leave them out",
        )
    if target_flops:
        err.print(
            "[bold yellow]warning:[/] --target-flops is deprecated and will be removed in the next version: "
            "use --target-macs",
            soft_wrap=True,
        )
    asked = {
        "target_speedup": target_speedup,
        "target_latency_ms": target_latency_ms,
        "target_parameters": target_parameters,
        "target_macs": [*(target_macs or []), *(target_flops or [])],
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
    with step_lines(console, quiet):
        members = prune_checkpoint(
            model,
            data,
            out_folder,
            PruneStep.of(settings),
            targets,
            max_length=max_length,
            candidates=candidates,
            threads=threads,
            seed=seed,
            device=device,
            dtype=dtype,
            measured=measure,
            progress=not quiet,
        )
    write_json(json_file, family_json(members))
    table = Table(title=f"{model} on {settings['runtime']}", title_justify="left")
    for name in ("target", "folder", "predicted", "measured", "MACs", "size", "loss"):
        table.add_column(name, justify="left" if name in ("target", "folder") else "right", no_wrap=True)
    for member in members:
        table.add_row(
            member.target,
            member.folder,
            *(f"{value:.2f}x" if value else "" for value in (member.predicted_speedup, member.measured_speedup)),
            f"{member.encoder_macs_kept:.0%}",
            f"{member.parameters / 1e6:.1f} M",
            f"{member.calibration_loss:.3g}",
        )
    console.print(table)
    console.print(
        "predicted, measured: speed-up. MACs: remaining share of the encoder's. size: parameters. "
        "loss: divergence of the ranking from the unpruned model's on held-out train queries. "
        f"Next: hfcompress evaluate {out_folder / members[0].folder} --baseline {model} --data {data[0]}",
        soft_wrap=True,
    )
